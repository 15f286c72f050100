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
from smplora.runs.subject import load_subject

IMAGES, STEPS = 100, 25
FILE = "alignment.json"  # beside the adapter


def caption_alignment(subject: Path, manifest: Path) -> float:
    """The share of generated images whose caption a logistic regression on the bundled features names, which learned on
    the held-out images of ``manifest``. Measured once; ``FILE`` also has its accuracy on held-out images, five-fold.

    The captions are those of the held-out images in turn, image i starts from the noise of seed i, 25 DDIM steps.
    """
    if (subject / FILE).exists():
        return float(read_json(subject / FILE)["caption_alignment"])
    loaded = load_subject(str(subject), {}, "cpu", str(manifest))
    held_out, encoder = loaded.split.cells["reference"], load_encoder("tiny", "cpu")

    def features(pixels: torch.Tensor) -> torch.Tensor:
        return encoder.embedding(pixels)

    known = [s.caption for s in held_out]
    real = load_pixels((loaded.source.read(s.file) for s in held_out), loaded.resolution) / 2 + 0.5
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    accuracy = cross_val_score(classifier, features(real).numpy(), known, cv=5).mean()
    classifier.fit(features(real).numpy(), known)
    captions = [known[i % len(known)] for i in range(IMAGES)]
    made = []
    for start in range(0, IMAGES, 50):
        rows = range(start, start + 50)
        seeds = [stream_seed(0, "alignment", i) for i in rows]
        asked = [captions[i] for i in rows]
        made.append(
            loaded.adapted.model.generate(
                asked, seeds, resolution=loaded.resolution, num_inference_steps=STEPS, guidance_scale=1.0
            )
        )
    named = classifier.predict(features(torch.cat(made)).numpy())
    shares = [float(name == caption) for name, caption in zip(named, captions, strict=True)]
    write_json(subject / FILE, {"caption_alignment": sum(shares) / IMAGES, "of_held_out": float(accuracy)})
    return sum(shares) / IMAGES
