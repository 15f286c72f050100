"""Attacks x cells -> signals and scores on disk, numbers with intervals, a verdict.

Whatever is fitted is fitted on aux: scalers, signs, classifiers, thresholds (the last from out-of-fold scores). The
test cells are scored once. Aux members are audited too, out of fold: they are private images like the others.
"""

from __future__ import annotations

import io
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from smplora.adapt.lora import LoRAAdaptation
from smplora.attacks import ATTACKS
from smplora.attacks.loss import timestep_grid
from smplora.config import AuditConfig, TrainConfig
from smplora.contracts import Attack, Batch, Bools, Floats
from smplora.data import encode, read_folder
from smplora.diffusion import LatentDiffusion
from smplora.errors import CheckpointError, SplitError
from smplora.export import ADAPTER_FILE, read_adapter
from smplora.files import write_atomically, write_json
from smplora.metrics import best_threshold, summary
from smplora.models import choose_device, load_model
from smplora.progress import bar
from smplora.registry import load
from smplora.run import Subject, environment, find_subject, say
from smplora.scorers import out_of_fold
from smplora.split import CELLS, MANIFEST, Split, read_split
from smplora.views import GreyBox

FORMAT = "smplora.audit/1"
ATTACKED = CELLS[:4]
# |AUC - 0.5| / 0.5: an interval wholly above the first is a leak; all below the second is none that these cells show
LEAK, NO_LEAK = 0.1, 0.3


@dataclass(frozen=True)
class Loaded:
    """A subject with everything loaded: adapted model, split, where the images are."""

    subject: Subject
    model: LatentDiffusion
    split: Split
    images: Path
    resolution: int
    adapter_sha256: str

    def encode(self, cell: str, largest: int | None = None) -> Batch:
        """Latents and embeddings of the cell, or of its first ``largest`` images (their order is random)."""
        return encode(self.model, self.images, self.split.cells[cell][:largest], self.resolution)


def load_subject(adapter: str, train_data_dir: str | None, device: str, split_manifest: str | None = None) -> Loaded:
    """Load what ``--adapter`` names, with the split of its run or of ``split_manifest``.

    Raises:
        UserError: missing or damaged files, moved or changed images.
    """
    subject = find_subject(adapter)
    chosen = choose_device(device)
    config: TrainConfig = replace(subject.config, train_data_dir=train_data_dir or subject.config.train_data_dir)
    state, sha256 = read_adapter(subject.folder / ADAPTER_FILE)
    samples = read_folder(config)
    split = read_split(subject.run / MANIFEST, samples)
    if split_manifest:
        split = _with_same_members(split, read_split(Path(split_manifest), samples), split_manifest)
    model = load_model(config.pretrained_model_name_or_path, chosen)
    adaptation = LoRAAdaptation.from_config(config)
    adaptation.attach(model.denoiser)
    try:
        adaptation.load_state_dict(model.denoiser, state)
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"--adapter: {subject.folder / ADAPTER_FILE} does not fit {config.pretrained_model_name_or_path}: {error}"
        ) from error
    model.denoiser.eval().requires_grad_(False)
    return Loaded(
        subject, model, split, Path(config.train_data_dir or ""), config.resolution or model.resolution, sha256
    )


def _with_same_members(trained: Split, given: Split, name: str) -> Split:
    for cell in ("aux_member", "test_member"):
        if {s.digest for s in trained.cells[cell]} != {s.digest for s in given.cells[cell]}:
            raise SplitError(
                f"--split_manifest '{name}' has another {cell} cell than the split that the adapter was trained on"
            )
    return given


def audit(config: AuditConfig, *, progress: bool = True) -> dict[str, Any]:
    """``smplora audit``: write audit.json and scores.npz; returns the content of the first.

    Raises:
        UserError: anything that the user can mend.
    """
    began = time.perf_counter()
    loaded = load_subject(config.adapter or "", config.train_data_dir, config.device, config.split_manifest)
    attacks = {name: load(ATTACKS, name, "attacks").from_config(config) for name in config.attacks}
    signals = collect_signals(loaded, attacks, config, progress)
    aux_member, test_member = (labels(loaded.split.sizes, kind) for kind in ("aux", "test"))
    arrays: dict[str, Any] = {"aux_member": aux_member, "test_member": test_member}
    results = []
    for name, attack in attacks.items():
        aux, test = (
            np.concatenate([signals[name, f"{kind}_member"], signals[name, f"{kind}_nonmember"]])
            for kind in ("aux", "test")
        )
        scored = attack_cells(attack, aux, aux_member, test, config.seed)
        arrays |= {f"{name}/{key}": value for key, value in scored.items()}
        results.append(
            {
                "name": name,
                "title": attack.info.title,
                "access": attack.info.access.value,
                "reference": attack.info.reference,
                "bibtex": attack.info.bibtex,
                "fitted_on": "aux",
                "test": summary(scored["test"], test_member, float(scored["test_threshold"])),
                "aux_members": summary(scored["aux_out_of_fold"], aux_member, float(scored["aux_threshold"])),
                "paper_protocol": attack.paper_protocol(aux, aux_member, test, test_member, config.seed),
            }
        )
    content: dict[str, Any] = {
        "format": FORMAT,
        "subject": loaded.subject.describe(loaded.adapter_sha256, loaded.model.name),
        "split": {"protocol": loaded.split.protocol, "seal": loaded.split.seal, "cells": loaded.split.sizes},
        "settings": {
            "timesteps": timestep_grid(config.num_timesteps, loaded.model.num_train_timesteps),
            "noise_pairs": config.noise_pairs,
            "error_map_draws": config.error_map_draws,
            "seed": config.seed,
            "latents": "posterior mode",
            "guidance": "off",
        },
        "attacks": results,
        "verdict": verdict(results),
        "environment": environment(),
        "elapsed_s": round(time.perf_counter() - began, 1),
    }
    folder = Path(config.output_dir) if config.output_dir else loaded.subject.folder / "audit"
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, seal=loaded.split.seal, adapter_sha256=loaded.adapter_sha256, **arrays)
    write_atomically(folder / "scores.npz", buffer.getvalue())
    write_json(folder / "audit.json", content)
    if progress:
        say(f"{loaded.subject.label}: {content['verdict']['sentence']}")
    if config.json:
        print(json.dumps(content))
    return content


def collect_signals(
    loaded: Loaded, attacks: dict[str, Attack], config: AuditConfig, progress: bool
) -> dict[tuple[str, str], Floats]:
    """Every attack's signals on every cell: {(attack, cell): [n, ...]}. One view per batch serves all attacks."""
    parts: dict[tuple[str, str], list[Floats]] = {(name, cell): [] for name in attacks for cell in ATTACKED}
    total = sum(loaded.split.sizes[cell] for cell in ATTACKED)
    with bar(total, f"audit {loaded.subject.label}", unit="image", show=progress) as display:
        for cell in ATTACKED:
            for batch in loaded.encode(cell).split(config.batch_size):
                view = GreyBox(loaded.model, batch, config.seed)
                for name, attack in attacks.items():
                    parts[name, cell].append(attack.signals(view))
                display.update(len(batch))
    return {key: np.concatenate(value) for key, value in parts.items()}


def labels(sizes: dict[str, int], kind: str) -> Bools:
    """Members first: [n] bool for ``kind`` "aux" or "test"."""
    return np.arange(sizes[f"{kind}_member"] + sizes[f"{kind}_nonmember"]) < sizes[f"{kind}_member"]


def attack_cells(attack: Attack, aux: Floats, aux_member: Bools, test: Floats, seed: int) -> dict[str, Any]:
    """Fit on aux, score test once. Test membership is no argument: nothing fitted can depend on it.

    Returns:
        "test": scores [n_test]; "aux_out_of_fold": [n_aux]; and the thresholds of both, each fitted on aux.
    """
    scorer = attack.scorer(seed).fit(aux, aux_member)
    inside = scorer.score(aux)
    centre, scale = inside.mean(), max(float(inside.std()), 1e-12)
    held = out_of_fold(attack, aux, aux_member, seed)
    # out-of-fold scores are standardised by their fold's fitting samples, so the test scores are by all of aux
    threshold = best_threshold(held, aux_member)
    return {
        "test": (scorer.score(test) - centre) / scale,
        "test_threshold": threshold,
        "aux_out_of_fold": held,
        "aux_threshold": threshold,
    }


def verdict(attacks: list[dict[str, Any]]) -> dict[str, Any]:
    """Red, amber or green from the attack and group (test members, aux members) with the largest |AUC - 0.5|.

    Red: an interval of |AUC - 0.5| / 0.5 lies wholly above 0.1. Green: every one lies wholly below 0.3 and contains 0.
    """
    groups = {
        "test": "members that no attack or proxy has trained on",
        "aux_members": "members that attacks and proxies train on",
    }
    found = [(attack[group]["auc_deviation"], attack, group) for attack in attacks for group in groups]
    strongest, attack, group = max(found, key=lambda f: (f[0]["low"], f[0]["value"]))
    worst = max(f[0]["high"] for f in found)
    auc = attack[group]["auc"]
    numbers = f"AUC {auc['value']:.2f} [{auc['low']:.2f}, {auc['high']:.2f}] by '{attack['title']}' on {groups[group]}"
    if strongest["low"] > LEAK:
        level, sentence = "red", f"Leaks: {numbers}."
    elif strongest["low"] == 0 and worst < NO_LEAK:
        level, sentence = (
            "green",
            f"No leak found by these attacks; an AUC above {0.5 + worst / 2:.2f} is ruled out at 95 %.",
        )
    else:
        level, sentence = (
            "amber",
            f"Unclear: strongest is {numbers}; an AUC of {0.5 + worst / 2:.2f} cannot be ruled out.",
        )
    return {"level": level, "sentence": sentence, "attack": attack["name"], "group": group}
