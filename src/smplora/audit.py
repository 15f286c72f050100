"""Attacks x cells -> signals -> scores on disk, numbers with intervals, a verdict.

Whatever is fitted is fitted on aux: scalers, signs, classifiers, thresholds (the last from out-of-fold scores). The
test cells are scored once. Aux members are audited too, out of fold: they are private images like the others.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from smplora.attacks import COUNTS
from smplora.attacks.loss import timestep_grid
from smplora.cache import open_cache
from smplora.card import write_card
from smplora.config import AuditConfig
from smplora.contracts import Attack, Floats, Pictures
from smplora.errors import ConfigError, InvalidAudit
from smplora.exposed import write_exposed
from smplora.files import write_atomically, write_json
from smplora.foreign import load_any
from smplora.gates import BASE, BaseLoss, base_check, blind_checks, failures, gates, look, notes, shuffled_check
from smplora.judgement import FORMAT, conclude, labels, score_arrays, strongest_first, try_attacks
from smplora.lowpass import load_attacks
from smplora.memorisation import encoder_for, forget, memorise
from smplora.progress import bar
from smplora.report import write_report
from smplora.run import environment, say
from smplora.shadows import plan_shadows, with_shadows
from smplora.signals import audit_signals
from smplora.split import CELLS, POOLS, write_split
from smplora.streams import generator
from smplora.subject import Foreign, Loaded, result_folder
from smplora.views import VIEWS, Memory, out_of_reach

ATTACKED = CELLS[:4]


def audit(config: AuditConfig, *, progress: bool = True) -> dict[str, Any]:
    """Write audit.json and scores.npz; returns the content of the first, also where a gate makes it invalid.

    Raises:
        UserError: anything that the user can mend.
    """
    if config.signals:
        return audit_signals(config, progress=progress)
    began = time.perf_counter()
    folder = result_folder(config.adapter, config.output_dir, "audit")
    loaded = load_any(config, open_cache(config))
    attacks = load_attacks(config.chosen_attacks, config)
    if config.looks_for_copies:
        encoder_for(config, loaded.resolution)  # one that is not there is said before the attacks run
    shadowing = plan_shadows(config, loaded, folder) if config.shadows else None
    if shadowing:
        split = loaded.split
        del loaded  # its memory is needed to train

        def ask(shadow: Loaded, asked: Mapping[str, Attack], title: str) -> dict[tuple[str, str], Floats]:
            return collect_signals(shadow, asked, config, progress, title)

        attacks = with_shadows(attacks, shadowing, config, split, ask, progress)
        loaded = load_any(config, open_cache(config))
    for access, reason in out_of_reach(loaded.model).items() if config.attacks is None else ():
        blind = [name for name, attack in attacks.items() if attack.info.access is access]
        attacks = {name: attack for name, attack in attacks.items() if name not in blind}
        if blind and progress:
            say(f"left out, since {reason}: {', '.join(blind)}")
    check_honest(attacks)
    sizes = loaded.split.sizes
    aux_member, test_member = (labels(sizes, kind) for kind in ("aux", "test"))
    looked = look(loaded)
    checks = blind_checks(looked, config.seed)
    base = BaseLoss(config.num_timesteps, config.count("noise_pairs"))
    signals = collect_signals(loaded, {**attacks, BASE: base}, config, progress)
    checks.append(base_check(signals, looked.is_member, config.seed))
    tried = try_attacks(attacks, signals, sizes, config.seed)
    aux = {name: np.concatenate([signals[name, cell] for cell in ("aux_member", "aux_nonmember")]) for name in attacks}
    checks.append(shuffled_check(attacks, strongest_first(tried, aux_member), aux, aux_member, config.seed))
    content: dict[str, Any] = {
        "format": FORMAT,
        "subject": loaded.subject.describe(loaded.adapter_sha256, loaded.model),
        "split": {"protocol": loaded.split.protocol, "seal": loaded.split.seal, "cells": loaded.split.sizes},
        "settings": {
            **audit_settings(config),
            "attacks": list(attacks),
            "timesteps": timestep_grid(config.num_timesteps, loaded.model.num_train_timesteps),
            "latents": "posterior mode",
            "guidance": "off",
        },
        "shadows": shadowing.describe(config.shadow_signal) if shadowing else None,
        "gates": gates(checks, [*(shadowing.notes() if shadowing else []), *notes(looked, sizes, config.seed)]),
        **conclude(
            tried,
            aux_member,
            test_member,
            seed=config.seed,
            coin=loaded.split.protocol == "coin",
            delta=config.target_delta,
            failed_gates=failures(checks),
        ),
        "memorisation": memorise(loaded, config, folder, progress) if config.looks_for_copies else None,
        "environment": environment(),
        "elapsed_s": round(time.perf_counter() - began, 1),
    }
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if content["memorisation"] is None:
        forget(folder)
    buffer = io.BytesIO()
    arrays = score_arrays(tried, aux_member, test_member)
    np.savez_compressed(buffer, seal=loaded.split.seal, adapter_sha256=loaded.adapter_sha256, **arrays)
    write_atomically(folder / "scores.npz", buffer.getvalue())
    best = content["strongest"]["test"]
    write_exposed(folder, loaded, next(t for t in tried if t.name == best["attack"]), best["sign"])
    write_json(folder / "audit.json", content)
    if isinstance(loaded.subject, Foreign):  # no run has a page of it
        write_report([folder], folder / "report.html")
    elif config.output_dir is None:
        write_card(loaded.subject)
    if loaded.split.protocol == POOLS:  # which image is in which cell, and so behind which score
        write_split(loaded.split, folder)
    if progress:
        say(f"{loaded.subject.label}: {content['verdict']['sentence']}")
        if content["memorisation"]:
            say(f"{loaded.subject.label}: {content['memorisation']['sentence']}")
    if config.json:
        print(json.dumps(content))
    return content


def command(config: AuditConfig) -> None:
    """``smplora audit``.

    Raises:
        InvalidAudit: a gate failed; everything is written nevertheless.
        UserError: anything that the user can mend.
    """
    verdict = audit(config)["verdict"]
    if verdict["level"] == "invalid":
        raise InvalidAudit(verdict["sentence"])


def check_honest(attacks: Mapping[str, Attack]) -> None:
    """See whether there is an attack to choose on aux.

    Raises:
        ConfigError: all of them saw aux in training.
    """
    if all(attack.info.saw_aux for attack in attacks.values()):
        names = ", ".join(attacks)
        raise ConfigError(f"--attacks got {names} alone, which the run has trained on aux; add another, such as loss")


def audit_settings(config: AuditConfig) -> dict[str, Any]:
    """The options that decide an audit's numbers."""
    return {
        "tier": config.tier if config.attacks is None else None,
        "attacks": config.chosen_attacks,
        "num_timesteps": config.num_timesteps,
        **{name: config.count(name) for name in COUNTS[config.tier]},
        "target_delta": config.target_delta,
        "seed": config.seed,
        "shadows": config.shadows,
        "shadow_signal": config.shadow_signal if config.shadows else None,
    }


def collect_signals(
    loaded: Loaded,
    attacks: Mapping[str, Attack],
    config: AuditConfig,
    progress: bool,
    title: str | None = None,
) -> dict[tuple[str, str], Floats]:
    """Every attack's signals on every cell: {(attack, cell): [n, ...]}. Each attack gets the view of its access level;
    the views of one batch share one memory."""
    parts: dict[tuple[str, str], list[Floats]] = {(name, cell): [] for name in attacks for cell in ATTACKED}
    order: dict[str, Any] = {}
    total = len(attacks) * sum(loaded.split.sizes[cell] for cell in ATTACKED)
    with bar(total, title or f"audit {loaded.subject.label}", unit="signal", show=progress) as display:
        for cell in ATTACKED:
            encoded = loaded.encode(cell)
            order[cell] = np.argsort(encoded.order)
            others = captions_of_others([s.caption for s in loaded.split.cells[cell]], config.seed)
            others = [others[place] for place in encoded.order]
            samples = [loaded.split.cells[cell][place] for place in encoded.order]
            start = 0
            for batch in encoded.split(config.batch_size):
                rows = slice(start, start + len(batch))
                start += len(batch)
                pictures = Pictures(
                    captions=tuple(s.caption for s in samples[rows]),
                    other_captions=tuple(others[rows]),
                    load_pixels=partial(loaded.pixels, samples[rows]),
                )
                memory: Memory = {}
                for name, attack in attacks.items():
                    view = VIEWS[attack.info.access](
                        loaded.model, batch, config.seed, pictures, memory, loaded.latent_size
                    )
                    parts[name, cell].append(attack.signals(view))
                    display.update(len(batch))
    return {(name, cell): np.concatenate(value)[order[cell]] for (name, cell), value in parts.items()}


def captions_of_others(captions: list[str], seed: int) -> list[str]:
    """For each image the caption of another one: a random cycle through all."""
    order = torch.randperm(len(captions), generator=generator(seed, "captions of others")).tolist()
    others = dict(zip(order, [captions[i] for i in order[1:] + order[:1]], strict=True))
    return [others[i] for i in range(len(captions))]
