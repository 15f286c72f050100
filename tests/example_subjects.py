"""Made-up subjects in the format of docs/formats.md, for the tests of the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

HOSTILE = """<script>alert(1)</script> "x" & 'y' $\\alpha$ id="z" {{ 7*7 }}"""
CAPTIONS = ["a handwritten five", "a handwritten six", HOSTILE, "a handwritten eight", "a handwritten nine", "a seven"]
SEAL = "sha256 3f7a0c55d1e2b94866aa12c0ffee9d3017b4e5f60718293a4b5c6d7e8f901234"
BIBTEX = "@inproceedings{watson2022,\n  title = {On the Importance of Difficulty Calibration},\n  year = {2022}\n}"

# folder: label, objective, step, level, AUC on test members, on aux members, ASR, KID, FID
SUBJECTS: dict[str, tuple[str, str, int, str, float, float, float, float | None, float | None]] = {
    "lora": ("LoRA", "lora", 1500, "red", 0.912, 0.934, 0.84, 0.0123, 19.74),
    "lora/checkpoints/checkpoint-500": ("LoRA, step 500", "lora", 500, "red", 0.663, 0.741, 0.61, 0.0391, 31.18),
    "lora/checkpoints/checkpoint-1000": ("LoRA, step 1000", "lora", 1000, "red", 0.804, 0.846, 0.72, 0.0222, 24.61),
    "mp_lora": (HOSTILE, "mp_lora", 1500, "amber", 0.587, 0.693, 0.57, None, None),
    "smp_lora": ("SMP-LoRA", "smp_lora", 1500, "green", 0.523, 0.604, 0.53, 0.0268, 25.47),
}
ATTACKS = (
    ("loss", "Loss threshold", "grey box", "Yeom et al. 2018", "@article{yeom2018, year = {2018}}", 0.55),
    ("calibrated_loss", "Loss calibrated by the base model", "grey box", "Watson et al. 2022", BIBTEX, 1.0),
    ("error_map", "Fresh proxy on error maps (the paper's)", "grey box", "Luo et al. 2025", "", 0.4),
)


def write_subjects(folder: Path) -> list[Path]:
    """Write three runs and two checkpoints; return their folders in the order of ``SUBJECTS``."""
    for name in SUBJECTS:
        _write(folder / name, name)
    return [folder / name for name in SUBJECTS]


def _write(folder: Path, name: str) -> None:
    label, objective, step, level, test, aux, asr, kid, fid = SUBJECTS[name]
    digest = f"{len(name):064x}"
    about = {"label": label, "objective": objective, "step": step, "max_train_steps": 1500,
             "adapter_sha256": digest, "model": "the bundled model"}  # fmt: skip
    verdict = {"red": "Leaks", "amber": "Unclear", "green": "No leak found"}[level]
    audit = {
        "format": "smplora.audit/3",
        "subject": about,
        "split": {"protocol": "fixed", "seal": SEAL, "cells": {
            "aux_member": 50, "aux_nonmember": 50, "test_member": 50, "test_nonmember": 50, "reference": 696}},
        "settings": {"timesteps": [50, 150, 300, 450], "noise_pairs": 2, "seed": 0},
        "attacks": [_attack(*attack, test, aux, asr) for attack in ATTACKS],
        **_evidence(test, aux),
        "verdict": {"level": level, "attack": "calibrated_loss", "group": "test",
                    "sentence": f"{verdict}: calibrated loss reaches AUC {test:.2f} on images the proxy never saw."},
        "environment": {"python": "3.11.4", "torch": "2.13.0", "processor": "x86_64", "threads": 1},
        "elapsed_s": 12.3,
    }  # fmt: skip
    (folder / "audit").mkdir(parents=True)
    _json(folder / "audit" / "audit.json", audit)
    if kid is not None and fid is not None:
        _write_quality(folder / "quality", about, kid, fid)
    if folder.parent.name != "checkpoints":
        _write_run(folder, objective, digest, step)


def _evidence(test: float, aux: float) -> dict[str, Any]:
    bound = {"attack": "calibrated_loss", "value": 1.2, "ceiling": 2.57, "true_positives": 30, "false_positives": 2}
    aucs = {"test": test, "aux_members": aux}
    check = {"name": "captions", "passed": True, "sentence": f"captions alone cannot tell {HOSTILE}", "auc": None}
    return {
        "gates": {"passed": True, "tolerance": 0.02, "checks": [check], "notes": ["2 near-duplicate pairs"]},
        "strongest": {
            group: {"attack": "calibrated_loss", "sign": 1, "attacks": 3, "chosen_on": "aux", "p_corrected": 0.0004,
                    "smallest_p_corrected": 0.0004, "low_fpr": None,
                    "auc": {**_estimate(auc, 0.14 * (1.1 - auc)), "method": "DeLong", "level": 0.9875},
                    "auc_deviation": _estimate(abs(auc - 0.5) * 2, 0.1)}
            for group, auc in aucs.items()
        },
        "epsilon": {"delta": 0.0, "level": 0.95, "clopper_pearson": bound, "one_run": None},
        "dataset_inference": {"attack": "calibrated_loss", "p": 1e-9},
        "power": {
            group: {"n_members": 50, "n_nonmembers": 50, "level": 0.9875, "power": 0.8, "auc": 0.69} for group in aucs
        },
        "exposure": {
            group: {"attack": "calibrated_loss", "edges": [-1.0, 0.0, 1.0, 2.0],
                    "members": [5, 20, 25], "nonmembers": [30, 15, 5]}
            for group in aucs
        },
    }  # fmt: skip


def _attack(name: str, title: str, access: str, reference: str, bibtex: str, power: float,
            test: float, aux: float, asr: float) -> dict[str, Any]:  # fmt: skip
    return {
        "name": name, "title": title, "access": access, "reference": reference, "bibtex": bibtex, "fitted_on": "aux",
        "test": _numbers(0.5 + power * (test - 0.5), 0.5 + power * (asr - 0.5)),
        "aux_members": _numbers(0.5 + power * (aux - 0.5), 0.5 + power * (asr - 0.48)),
        "paper_protocol": {"label": "optimistic: checkpoint chosen on the test cells, as the paper does",
                           "asr": 0.61, "epoch": 40} if name == "error_map" else None,
    }  # fmt: skip


def _numbers(auc: float, asr: float) -> dict[str, Any]:
    steps = np.linspace(0, 1, 51)
    fpr, tpr = np.repeat(steps, 2)[1:], np.repeat(np.round(50 * (steps + 0.01) ** (1 / auc - 1)) / 50, 2)[:-1]
    tpr[0], tpr[-1] = 0.0, 1.0
    rates = {
        "0.001": {"value": None, "low": None, "high": None, "resolvable": False, "needs_nonmembers": 5000},
        "0.05": {"value": None, "low": None, "high": None, "resolvable": False, "needs_nonmembers": 100},
        "0.1": {**_estimate(float(tpr[11]), 0.13), "resolvable": True, "needs_nonmembers": 50},
    }
    return {
        "n_members": 50,
        "n_nonmembers": 50,
        "auc": {**_estimate(auc, 0.12 * (1.1 - auc)), "method": "DeLong"},
        "sign": 1,
        "p_value": {"p": 0.0001, "corrected": 0.0003},
        "auc_deviation": _estimate(abs(auc - 0.5) * 2, 0.1),
        "asr": _estimate(asr, 0.08),
        "tpr_at_fpr": rates,
        "roc": {
            "fpr": fpr.tolist(),
            "tpr": tpr.tolist(),
            "band": {
                "fpr_low": (0.8 * fpr).tolist(),
                "fpr_high": (1 - 0.8 * (1 - fpr)).tolist(),
                "tpr_low": (0.8 * tpr).tolist(),
                "tpr_high": (1 - 0.8 * (1 - tpr)).tolist(),
            },
        },
    }


def _estimate(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": max(value - half, 0.0), "high": min(value + half, 1.0)}


def _write_quality(folder: Path, about: dict[str, Any], kid: float, fid: float) -> None:
    folder.mkdir()
    no_fid = {"value": None, "reason": "FID needs more images than features: 100 of 64-d"}
    diversity = {"precision": _estimate(0.8, 0.1), "recall": _estimate(0.6, 0.1), "density": _estimate(0.7, 0.1),
                 "coverage": _estimate(0.9, 0.05)}  # fmt: skip
    _json(folder / "quality.json", {
        "format": "smplora.quality/2", "subject": about, "n_generated": 200, "seed": 0, "num_inference_steps": 25,
        "guidance_scale": 1.0, "features": ["tiny"], "title": "bundled digit features, 64-d", "weights": "bundled",
        "dimensions": 64, "others": {}, "clip_score": None,
        "nearest": {"n": 100, "train": _estimate(0.5, 0.1), "held_out": _estimate(0.6, 0.1),
                    "ratio": {"value": 0.97, "low": 0.92, "high": 1.02}},
        "against": {"held_out": {"n": 300, "kid": {"value": kid, "low": 0.85 * kid, "high": 1.17 * kid}, **diversity,
                                 "fid": {"value": fid, "low": fid - 1.3, "high": fid + 1.4}},
                    "train": {"n": 100, "kid": {"value": kid / 2, "low": kid / 3, "high": kid}, "fid": no_fid,
                              **diversity}},
        "held_out_loss": {"value": 0.0871, "low": 0.0842, "high": 0.09},
        "captions": CAPTIONS, "elapsed_s": 4.5,
    })  # fmt: skip
    _strip(0, 0.0).save(folder / "real.png")
    _strip(7, 900 * kid).save(folder / "samples.png")


def _strip(seed: int, noise: float) -> Image.Image:
    strip = Image.new("RGB", (32 * len(CAPTIONS), 32), "white")
    draw = ImageDraw.Draw(strip)
    for i, digit in enumerate("568979"[: len(CAPTIONS)]):
        draw.text((32 * i + 8 + seed % 3, 2), digit, fill="black", font_size=26)
    pixels = np.asarray(strip) + np.random.default_rng(seed).normal(0, noise + 1, (32, strip.width, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _write_run(run: Path, objective: str, digest: str, steps: int) -> None:
    proxy = objective != "lora"
    rng = np.random.default_rng(len(objective))
    gain = "  lambda: 0.05\n" if proxy else ""
    (run / "config.yaml").write_text(
        f"seed: 0\nrank: 16\nlearning_rate: 0.003\ntrain_batch_size: 10\nobjective:\n  name: {objective}\n{gain}"
        "pretrained_model_name_or_path: bundled\nresolution: 32\nhub_token: hf_abcdef\n",
        encoding="utf-8",
    )
    _json(run / "environment.json", {"python": "3.11.4", "torch": "2.13.0", "threads": 2, "smplora": "0.1.0"})
    lines = []
    for step in range(50, steps + 1, 50):
        loss = 0.09 + 0.2 * np.exp(-step / 400) + rng.normal(0, 0.004) + 0.02 * proxy
        lines.append({
            "step": step, "loss": loss, "adaptation_loss": loss, "grad_norm": 0.4, "learning_rate": 0.003,
            "mi_gain": -0.69 + 0.1 * np.exp(-step / 700) - rng.exponential(0.02) if proxy else None,
            "proxy_accuracy": 0.5 + 0.12 * np.exp(-step / 900) + rng.normal(0, 0.02) if proxy else None,
            "elapsed_s": step / 20,
        })  # fmt: skip
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 15', encoding="utf-8")
    _json(run / "DONE.json", {"step": steps, "adapter_sha256": digest})


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, allow_nan=False), encoding="utf-8")
