"""The page of one run: what it says, what it draws, that it asks nobody, runs nothing and stops refreshing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from smplora.report.run_page import pace, remarks, render_run, verdict_so_far, write_run_page
from smplora.results.curves import read_curves

HOSTILE = '<script>alert(1)</script> "x" {{ 7*7 }}'


def auc(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


def write_run(folder: Path, rows: int = 6, proxy: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(
        yaml.safe_dump({"objective": "smp_lora", "max_train_steps": 1000, "rank": 4, "train_data_dir": HOSTILE})
    )
    metrics = [
        {"step": 100 * k, "loss": 1 / k, "adaptation_loss": 1 / k, "mi_gain": -0.7 if proxy else None,
         "proxy_accuracy": 0.5 if proxy else None, "grad_norm": 0.1 * k, "learning_rate": 1e-4, "elapsed_s": 10.0 * k}
        for k in range(1, rows)
    ]  # fmt: skip
    monitor = [
        {"step": 100 * k, "held_out_loss": 0.2, "member_loss": 0.2 - 0.01 * k, "gap": 0.01 * k,
         "auc": auc(0.5 + 0.05 * k, 0.4 + 0.05 * k, 0.6 + 0.05 * k) if k else None,
         "proxy_auc": auc(0.6, 0.5, 0.7) if k and proxy else None}
        for k in range(rows)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    (folder / "monitor.jsonl").write_text("".join(json.dumps(row) + "\n" for row in monitor))
    gallery = folder / "validation"
    gallery.mkdir(exist_ok=True)
    (gallery / "prompts.json").write_text(json.dumps({"captions": [HOSTILE, "a dog"], "images": 1}))
    for step in range(1, 21):
        for column in range(2):
            Image.new("RGB", (8, 8), (step, column, 0)).save(gallery / f"step-{step}-{column}-0.png")
    (gallery / "step-21-0-0.png").write_bytes(b"")  # a round that is being drawn
    return folder


def test_everything_is_drawn_and_nothing_is_asked_for(tmp_path: Path) -> None:
    page = render_run(write_run(tmp_path), "2026-11-22 14:00:00")
    assert page.count("<figure>") == 8
    assert page.count("<img ") == 8 * 2
    assert "step 20" in page
    assert "step 21" not in page
    assert "<script" not in page
    assert "49" not in re.sub(r"<svg.*?</svg>|base64,[^\"]*", "", page, flags=re.DOTALL)
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "10.0 steps a second, about 50 s left" in page
    assert "2026-11-22 14:00:00" in page


def test_it_refreshes_until_the_run_is_done(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    assert 'http-equiv="refresh"' in render_run(run, "now")
    (run / "DONE.json").write_text("{}")
    page = render_run(run, "now")
    assert "http-equiv" not in page
    assert "refreshes every" not in page
    assert "Step 1,000 of 1,000: done" in page


def test_objectives_without_a_proxy_have_fewer_curves(tmp_path: Path) -> None:
    assert render_run(write_run(tmp_path, proxy=False), "now").count("<figure>") == 6


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    write_run(tmp_path, rows=0)
    for file in ("metrics.jsonl", "monitor.jsonl"):
        (tmp_path / file).unlink()
    write_run_page(tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert "Nothing was attacked so far" in page
    assert "<figure>" not in page
    assert (tmp_path / "index.html").stat().st_mode & 0o777 == 0o600


def test_a_budget(tmp_path: Path) -> None:
    """Which adapter is inside, and that the run ended earlier than it might have; what is steered has its curve."""
    run = write_run(tmp_path)
    config = yaml.safe_load((run / "config.yaml").read_text()) | {"privacy_budget": "auc=0.65"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    looks = [
        {"step": 100 * k, "leakage": auc(0.5, 0.4, 0.56 + 0.03 * k), "limit": 0.65, "held_out_loss": 1 / k,
         "mi_lambda": 0.05}
        for k in range(1, 6)
    ]  # fmt: skip
    (run / "budget.jsonl").write_text("".join(json.dumps(row) + "\n" for row in looks))
    assert "Inside --privacy_budget auc=0.65 at step 300, which is the best so far: up to 0.65, on" in render_run(
        run, "now"
    )
    (run / "DONE.json").write_text("{}")
    page = render_run(run, "now")
    assert "at step 300, which is published" in page
    assert "Step 500 of 1,000: done" in page
    assert page.count("<figure>") == 8 + 3
    (run / "budget.jsonl").write_text(json.dumps({**looks[4], "leakage": auc(0.8, 0.7, 0.9)}) + "\n")
    assert "Outside --privacy_budget auc=0.65: the least, at step 500, is up to 0.90, on" in render_run(run, "now")


def curves(**points: Any) -> dict[str, Any]:
    names = ("auc.value", "auc.low", "auc.high", "held_out_loss", "gap")
    return {name: points.get(name.replace(".", "_"), ()) for name in names}


@pytest.mark.parametrize(
    ("value", "low", "high", "level"),
    [
        (0.7, 0.6, 0.8, "red"),
        (0.3, 0.2, 0.4, "red"),
        (0.5, 0.4, 0.6, "green"),
        (0.5, 0.3, 0.7, "amber"),
        (0.55, 0.51, 0.6, "amber"),
    ],
)
def test_the_verdict_so_far_goes_by_the_audits_thresholds(value: float, low: float, high: float, level: str) -> None:
    found, sentence = verdict_so_far(curves(auc_value=[(5, value)], auc_low=[(5, low)], auc_high=[(5, high)]))
    assert found == level
    assert f"AUC {value:.2f} [{low:.2f}, {high:.2f}]" in sentence


@pytest.mark.parametrize(
    ("losses", "said"),
    [((3, 2, 1), "at its lowest"), ((1, 2, 3), "never been below the base model's"), ((3, 1, 2), "lowest at step 1")],
)
def test_what_the_held_out_loss_says(losses: tuple[float, ...], said: str) -> None:
    points = list(enumerate(losses))
    assert said in remarks(curves(held_out_loss=points, gap=points))[0]


def test_the_pace_is_that_since_the_last_start() -> None:
    resumed = [(10, 1.0), (20, 2.0), (30, 90.0), (40, 1.0), (50, 3.0)]
    assert pace(resumed, 100) == "5.0 steps a second, about 10 s left"
    assert pace([(10, 5.0), (20, 85.0)], 30) == "8.0 seconds a step, about 80 s left"
    assert pace([(10, 5.0), (20, 1.0)], 30) == ""
    assert pace([(10, 5.0), (20, 15.0), (30, 1.0)], 40) == "", "the rate before is another start's"


def test_curves_of_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(
        '{"step": 2, "a": {"low": 1}}\n{"step": 1, "a": null}\n{"step": 2, "a": {"low": 3}}\n{"step": 3, "a"'
    )
    assert read_curves(path, ["a.low"]) == {"a.low": ((2, 3.0),)}
    path.write_text('{"step"\n{"step": 1}\n')
    with pytest.raises(ValueError, match="line 1"):
        read_curves(path, ["a"])


def test_gradients_and_curvature(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    plain = render_run(run, "now")
    assert "Gradients and curvature" not in plain
    gradients = [
        {"step": k, "gradient_norm": 0.1 * k, "gradient_scale": 3.0, "adaptation_scale": 2.0, "gain_scale": 1.5}
        for k in range(1, 9)
    ]
    hessian = [{"step": 4 * k, "gradient_norm": 0.1 * k, "hessian_norm": 2.0 * k, "bound": 3.0 * k} for k in (1, 2)]
    (run / "gradients.jsonl").write_text("".join(json.dumps(row) + "\n" for row in gradients))
    (run / "hessian.jsonl").write_text("".join(json.dumps(row) + "\n" for row in hessian))
    page = render_run(run, "now")
    assert page.count("<figure>") == plain.count("<figure>") + 4
    assert "MI gain term" in page
    assert "largest</th>" not in page  # the table comes with the end of the run
    spread = {"n": 8, "mean": 0.5, "std": 0.125, "min": 0.25, "max": 0.75}
    told = {
        "format": "smplora.theory/1",
        "objective": "lora",
        "mi_lambda": None,
        "figure_1b": {
            "gradient_norm": None,
            "hessian_norm": spread,
            "pearson": {"n": 8, "p_value": 0.0001, "r": auc(0.761, 0.5, 0.9)},
        },
        "figure_2": dict.fromkeys(("gradient_norm", "gradient_scale", "adaptation_scale", "gain_scale"), spread),
        "table_3": {"1/D": spread, "L_ada/D^2": None, "lambda*L_ada/D^2": None},
        "propositions": {"points": 8, "holds": 7, "l0": spread, "l1": spread},
    }
    (run / "theory.json").write_text(json.dumps(told))
    page = render_run(run, "now")
    assert "8 points: 0.761 [0.50, 0.90], p below 0.001" in page
    assert "held at 7 of 8 points" in page
    cells = r"<td>0.5</td><td>0.125</td><td>0.25</td><td>0.75</td>"
    assert page.count(cells) == 6
    assert "λ L_ada/D²</th>" not in page
    told["figure_2"].pop("gain_scale")
    (run / "theory.json").write_text(json.dumps(told))
    assert render_run(run, "now").count(r"<td>0.5</td><td>0.125</td><td>0.25</td><td>0.75</td>") == 5
