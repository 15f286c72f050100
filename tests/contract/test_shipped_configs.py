"""The YAML files under configs/ are what the commands take; those of the paper have its cells (Table 4)."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from smplora.cli.parse import parse
from smplora.config.catalogue.objectives import OBJECTIVES
from smplora.config.quickstart import QuickstartConfig
from smplora.config.sweep import SweepConfig
from smplora.config.train import TrainConfig
from smplora.experiments.quickstart import training
from smplora.experiments.sweep import plan

CONFIGS = Path(__file__).parents[2] / "configs"
SWEEPS = sorted((CONFIGS / "sweeps").glob("*.yaml"))
CELLS = {  # aux members = aux non-members, test members, test non-members
    "pokemon": (200, 233, 200),
    "celeba_small": (50, 50, 50),
    "celeba_large": (200, 200, 200),
    "celeba_gender": (40, 40, 40),
    "celeba_varying": (63, 63, 63),
    "celeba_large_5x": (1000, 1000, 1000),
    "afhq_large_5x": (750, 750, 750),
    "mscoco_large_5x": (1000, 1000, 1000),
}


def parsed(path: Path, folder: Path) -> TrainConfig:
    config: TrainConfig = parse("train", ["--config", str(path), "--train_data_dir", str(folder)])
    return config


@pytest.mark.parametrize("path", sorted({*CONFIGS.rglob("*.yaml")} - {*SWEEPS}), ids=lambda p: p.stem)
def test_every_file_is_taken_whole(path: Path, tmp_path: Path) -> None:
    config = parsed(path, tmp_path)
    for option, value in yaml.safe_load(path.read_text()).items():
        assert getattr(config, option) == value
    launch = path.read_text().splitlines()[0]
    assert f"smplora train --config {path.relative_to(CONFIGS.parent)} " in launch


def test_the_sweep_of_baselines(tmp_path: Path) -> None:
    """It can start; every objective is in it, so that a new one is compared too; plain LoRA is the quickstart's, and
    nothing that is written there for one objective is another's."""
    (path,) = SWEEPS
    config: SweepConfig = parse("sweep", ["--config", str(path), "--train_data_dir", str(tmp_path)])
    for option, value in yaml.safe_load(path.read_text()).items():
        assert getattr(config, option) == value
    assert f"smplora sweep --config {path.relative_to(CONFIGS.parent)} " in path.read_text().splitlines()[0]
    points = config.all_points
    assert {point.train["objective"] for point in points} == set(OBJECTIVES)
    assert len(points) == len(config.points or [])
    assert not config.unused
    plain = plan.trainings(config)["objective=lora"]
    quick = training(QuickstartConfig(), "lora", {"train_data_dir": str(tmp_path)}, tmp_path)
    differing = {name for name, value in vars(plain).items() if value != getattr(quick, name)}
    assert differing == {"output_dir", "split_manifest", "aux_size"}
    stopped = [s.step for s in plan.subjects(config) if s.run == "objective=lora"]
    assert stopped == [*QuickstartConfig().early_stops, None]


@pytest.mark.parametrize("name", CELLS)
def test_the_papers_cells(name: str, tmp_path: Path) -> None:
    config = parsed(CONFIGS / "paper" / f"{name}.yaml", tmp_path)
    test_nonmembers = config.test_nonmember_size or config.test_size
    assert (config.aux_size, config.test_size, test_nonmembers) == CELLS[name]
    assert (config.rank, config.lora_alpha, config.learning_rate, config.num_train_epochs) == (64, 32, 1e-4, 400)


@pytest.mark.parametrize("name", ["full", "dreambooth"])
def test_table_9_differs_from_its_dataset_by_the_method(name: str, tmp_path: Path) -> None:
    config = parsed(CONFIGS / "paper" / "table_9" / f"{name}.yaml", tmp_path)
    lora = parsed(CONFIGS / "paper" / "pokemon.yaml", tmp_path)
    assert (config.adaptation, config.learning_rate) == (name, 5e-6)
    differing = {k for k, v in vars(config).items() if v != getattr(lora, k)}
    assert differing <= {
        *("adaptation", "learning_rate", "text_encoder_lr", "rank", "lora_alpha", "lora_targets"),
        *("instance_prompt", "with_prior_preservation", "class_prompt", "num_class_images"),
    }


def test_the_papers_datasets_are_all_there() -> None:
    assert {p.stem for p in (CONFIGS / "paper").glob("*.yaml")} == CELLS.keys()
