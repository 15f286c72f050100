"""Attacks x cells -> signals -> scores on disk, numbers with intervals, a verdict.

Whatever is fitted is fitted on aux: scalers, signs, classifiers, thresholds (the last from out-of-fold scores). The
test cells are scored once. Aux members are audited too, out of fold: they are private images like the others.
"""

from __future__ import annotations

import io
import json
import time
from typing import Any

import numpy as np

from smplora.attacks import ATTACKS
from smplora.attacks.loss import timestep_grid
from smplora.cache import open_cache
from smplora.config import AuditConfig
from smplora.contracts import Attack, Floats
from smplora.files import write_atomically, write_json
from smplora.judgement import conclude, labels, score_arrays, try_attacks
from smplora.progress import bar
from smplora.registry import load
from smplora.run import environment, say
from smplora.split import CELLS
from smplora.subject import Loaded, load_subject, result_folder
from smplora.views import GreyBox

FORMAT = "smplora.audit/1"
ATTACKED = CELLS[:4]


def audit(config: AuditConfig, *, progress: bool = True) -> dict[str, Any]:
    """``smplora audit``: write audit.json and scores.npz; returns the content of the first.

    Raises:
        UserError: anything that the user can mend.
    """
    began = time.perf_counter()
    folder = result_folder(config.adapter, config.output_dir, "audit")
    loaded = load_subject(
        config.adapter or "",
        config.train_data_dir,
        config.device,
        config.split_manifest,
        config.dataset_name,
        open_cache(config),
    )
    attacks = {name: load(ATTACKS, name, "attacks").from_config(config) for name in config.attacks}
    sizes = loaded.split.sizes
    aux_member, test_member = (labels(sizes, kind) for kind in ("aux", "test"))
    tried = try_attacks(attacks, collect_signals(loaded, attacks, config, progress), sizes, config.seed)
    content: dict[str, Any] = {
        "format": FORMAT,
        "subject": loaded.subject.describe(loaded.adapter_sha256, loaded.model),
        "split": {"protocol": loaded.split.protocol, "seal": loaded.split.seal, "cells": loaded.split.sizes},
        "settings": {
            **audit_settings(config),
            "timesteps": timestep_grid(config.num_timesteps, loaded.model.num_train_timesteps),
            "latents": "posterior mode",
            "guidance": "off",
        },
        **conclude(tried, aux_member, test_member),
        "environment": environment(),
        "elapsed_s": round(time.perf_counter() - began, 1),
    }
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    arrays = score_arrays(tried, aux_member, test_member)
    np.savez_compressed(buffer, seal=loaded.split.seal, adapter_sha256=loaded.adapter_sha256, **arrays)
    write_atomically(folder / "scores.npz", buffer.getvalue())
    write_json(folder / "audit.json", content)
    if progress:
        say(f"{loaded.subject.label}: {content['verdict']['sentence']}")
    if config.json:
        print(json.dumps(content))
    return content


def audit_settings(config: AuditConfig) -> dict[str, Any]:
    """The options that decide an audit's numbers."""
    names = ("attacks", "num_timesteps", "noise_pairs", "error_map_draws", "seed")
    return {name: getattr(config, name) for name in names}


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
