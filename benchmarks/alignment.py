"""Whether generated digits are those that their captions ask for; arena.py asks."""

from __future__ import annotations

from pathlib import Path

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from smplora.core.files import write_json
from smplora.core.random_streams import stream_seed
from smplora.core.reading import read_json
from smplora.data.pictures import load_pixels
from smplora.models.encoders.transformers import load_encoder
from smplora.runs.subject import find_subject, load_subject

IMAGES, STEPS, AT_ONCE = 100, 25, 50
NAMES = ("caption_alignment", "held_out_named")
FILE = "alignment.json"  # beside the adapter


def caption_alignment(subject: Path, manifest: Path) -> dict[str, float]:
    """The share of ``IMAGES`` generated images whose caption a logistic regression on the bundled features names, which
    learned on the held-out images of ``manifest``; and the share of these that it names itself, five-fold.

    The captions are those of the held-out images in turn; image i has a seed of its own, the same for all subjects; 25
    DDIM steps. What was measured of the same adapter before is taken.
    """
    about = {"adapter_sha256": find_subject(str(subject)).adapter_sha256, "images": IMAGES, "steps": STEPS}
    before = read_json(subject / FILE) if (subject / FILE).exists() else {}
    if all(before.get(name) == value for name, value in about.items()):
        return {name: before[name] for name in NAMES}
    loaded, encoder = load_subject(str(subject), {}, "cpu", str(manifest)), load_encoder("tiny", "cpu")
    held_out = loaded.split.cells["reference"]
    known = [s.caption for s in held_out]
    real = load_pixels((loaded.source.read(s.file) for s in held_out), loaded.resolution) / 2 + 0.5
    features = encoder.embedding(real).numpy()
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    accuracy = cross_val_score(classifier, features, known, cv=5).mean()
    captions = [known[i % len(known)] for i in range(IMAGES)]
    made = [
        loaded.adapted.model.generate(
            captions[start : start + AT_ONCE],
            [stream_seed(0, "alignment", i) for i in range(start, min(start + AT_ONCE, IMAGES))],
            resolution=loaded.resolution,
            num_inference_steps=STEPS,
            guidance_scale=1.0,
        )
        for start in range(0, IMAGES, AT_ONCE)
    ]
    named = classifier.fit(features, known).predict(encoder.embedding(torch.cat(made)).numpy())
    kept = sum(name == caption for name, caption in zip(named, captions, strict=True)) / IMAGES
    found = dict(zip(NAMES, (kept, float(accuracy)), strict=True))
    write_json(subject / FILE, {**about, **found})
    return found
