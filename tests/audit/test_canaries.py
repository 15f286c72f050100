"""Canaries: the coin, what training and audits make of it, and whether what they prove is true."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import short_config
from smplora.adapters.files.write import ADAPTER_FILE
from smplora.attacks.base import Access, Attack, AttackInfo
from smplora.attacks.scorers import StandardisedMean
from smplora.audit.canaries import judge_canaries
from smplora.audit.signals import ATTACKED, Collector, captions_of_others
from smplora.cli.main import main
from smplora.config.data import SplitOptions
from smplora.config.train import TrainConfig
from smplora.core.errors import DataError, SplitError
from smplora.data.attributes import attribute_values
from smplora.data.folder import write_folder
from smplora.data.pool import CANARIES, Sample, open_source, read_samples
from smplora.data.source import JoinedSources
from smplora.data.split import Split, draw_canaries, make_split, read_split, write_split
from smplora.experiments.tasks import train
from smplora.results.audit import Audit
from smplora.results.record import parse
from smplora.runs.folder import read_config
from smplora.runs.subject import load_subject
from smplora.training.teachers import check_teachers, folds, teacher_runs

FEW = ("--attacks", "[loss, calibrated_loss]", "--num_timesteps", "2", "--noise_pairs", "1", "--device", "cpu")


def made_up(count: int, before: str = CANARIES) -> list[Sample]:
    return [Sample(f"{before}{k}.png", f"pattern {k}", f"{before}{k:05d}") for k in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    pictures = (Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(100))
    named = ((f"{k:05d}.png", picture, [f"pattern {k}"]) for k, picture in enumerate(pictures))
    return write_folder(tmp_path_factory.mktemp("made") / "canaries", named)


@pytest.fixture(scope="module")
def run(folder: Path, image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = short_config(image_folder, tmp_path_factory.mktemp("canaries") / "run", canaries_dir=str(folder))
    return train(config, progress=False)


def split_of(run: Path) -> Split:
    return read_split(run / "split.json", read_samples(open_source(read_config(run, TrainConfig))))


def test_the_coin_is_fair_knows_no_order_and_leaves_the_others_alone() -> None:
    pool = made_up(4000)
    drawn = draw_canaries(pool, 0)
    assert drawn == draw_canaries(pool[::-1], 0) != draw_canaries(pool, 1)
    assert drawn is not None
    for cell, share in zip(ATTACKED, (0.125, 0.375, 0.125, 0.375), strict=True):
        assert abs(drawn.sizes[cell] - 4000 * share) < 5 * (4000 * share * (1 - share)) ** 0.5
    images = made_up(100, "")
    with_canaries, without = make_split(images + pool, SplitOptions()), make_split(images, SplitOptions())
    assert with_canaries.cells == without.cells
    assert without.canaries is None
    assert with_canaries.seal != without.seal
    assert with_canaries.train == without.train + drawn.train


def test_images_of_the_pool_serve_as_well() -> None:
    """Drawn at random; the others are divided as if there were no more."""
    pool = made_up(400, "")
    split = make_split(pool, SplitOptions(num_canaries=150))
    assert split == make_split(pool[::-1], SplitOptions(num_canaries=150))
    assert split.canaries is not None
    chosen = {s.digest for cell in ATTACKED for s in split.canaries.cells[cell]}
    assert len(chosen) == 150
    left = [s for s in pool if s.digest not in chosen]
    assert split.cells == make_split(left, SplitOptions()).cells
    assert sum(split.sizes.values()) == 250
    other = make_split(pool, SplitOptions(num_canaries=150, split_seed=1)).canaries
    assert other is not None
    assert {s.digest for cell in ATTACKED for s in other.cells[cell]} != chosen


def test_training_takes_those_that_the_coin_put_in(run: Path, image_folder: Path, folder: Path) -> None:
    split = split_of(run)
    assert split.canaries is not None
    inside = {s.digest for cell in ("aux_member", "test_member") for s in split.canaries.cells[cell]}
    assert {s.digest for s in split.train if s.is_canary} == inside
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 6
    plain = read_split(run / "split.json", read_samples(open_source(read_config(run, TrainConfig))))
    assert plain.seal == split.seal
    assert len(split.train) == 20 + len(inside)
    assert not any(s.is_canary for s in split.members), "what images are compared with knows none"


def test_an_audit_says_what_they_prove(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(run), *FEW]) in (0, 3)
    said = capsys.readouterr().err
    result = parse(run / "audit" / "audit.json", Audit)
    found, split = result.canaries, split_of(run).canaries
    assert found is not None
    assert split is not None
    assert found.inside == len(split.members)
    assert found.inside + found.outside == 100
    assert found.one_run.candidates == split.sizes["test_member"] + split.sizes["test_nonmember"]
    assert found.chosen_on == 100 - found.one_run.candidates
    assert found.sentence in said
    assert "canaries, on top: the same attacks, but for those with shadows, on 100 images" in said
    assert result.split.cells["test_member"] == 10, "they are no part of the verdict"
    assert any(method.of == "epsilon from one run" for method in result.methods)
    page = tmp_path / "page.html"
    assert main(["report", str(run), "--output", str(page)]) == 0
    assert f"guessed {found.one_run.guesses} of the other {found.one_run.candidates}" in page.read_text()


def test_canaries_that_moved_changed_or_are_none(
    run: Path, trained_run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: object) -> str:
        assert main(["audit", *map(str, arguments), "--output_dir", str(tmp_path / "audit"), *FEW]) == 2
        return capsys.readouterr().err

    moved = shutil.copytree(folder, tmp_path / "moved")
    (moved / "00007.png").unlink()
    (moved / "metadata.jsonl").write_text(
        "".join(line for line in (folder / "metadata.jsonl").open() if "00007" not in line)
    )
    assert "1 images of" in refused(run, "--canaries_dir", moved)
    assert "was trained without one; leave it out" in refused(trained_run, "--canaries_dir", folder)
    assert "--canaries_dir got 'nowhere', which" in refused(run, "--canaries_dir", "nowhere")


def test_the_captions_that_controls_ask_with_know_no_coins(run: Path) -> None:
    """A guess that depends on the coins proves nothing: with captions of canaries that are in for those that are in, an
    adapter that knows captions alone would be taken for one that knows images."""
    split = split_of(run).canaries
    assert split is not None
    turned = {cell: split.cells[other] for cell, other in zip(ATTACKED, ATTACKED[2:] + ATTACKED[:2], strict=True)}
    others = [captions_of_others([s for cell in ATTACKED for s in cells[cell]], 0) for cells in (split.cells, turned)]
    assert others[0] == others[1]
    loaded = load_subject(str(run), None, "cpu")
    collector = Collector(replace(loaded, split=split), 0, 64)
    inside = {s.caption for s in split.members}
    asked = [c for piece in collector.cell("test_member")[0] for c in piece.pictures.other_captions]
    assert 0.2 < np.mean([caption in inside for caption in asked]) < 0.8


def test_a_named_manifest_keeps_the_coins(
    run: Path, image_folder: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may leave out the canaries, which the run knows; other coins, or trained images as others, are refused."""
    split = split_of(run)
    assert split.canaries is not None
    names = ("aux_member", "aux_nonmember")
    swapped = dict(zip(names, (split.canaries.cells[n] for n in names[::-1]), strict=True))
    tossed = replace(split, canaries=replace(split.canaries, cells=split.canaries.cells | swapped))
    blamed = split.canaries.cells["test_member"][:3]
    cells = split.cells | {"test_nonmember": split.cells["test_nonmember"] + blamed}
    for name, named, said in (
        ("tossed", tossed, "has other canaries, or other coins"),
        ("trained", replace(split, cells=cells, canaries=None), "3 images were not trained on which were"),
        ("without", replace(split, canaries=None), ""),
    ):
        manifest = write_split(named, tmp_path / name)
        if said:
            with pytest.raises(SplitError, match=said):
                load_subject(str(run), None, "cpu", str(manifest))
        else:
            found = load_subject(str(run), None, "cpu", str(manifest)).split.canaries
            assert found is not None
            assert found.cells == split.canaries.cells
    plain = write_split(replace(split, canaries=None), tmp_path / "plain")
    for option, value in (("num_canaries", 100), ("canaries_dir", folder)):
        words = ["--train_data_dir", image_folder, "--split_manifest", plain, f"--{option}", value]
        assert main(["train", *map(str, words), "--output_dir", str(tmp_path / "run")]) == 2
        assert f"--{option} got '{value}', but --split_manifest" in capsys.readouterr().err


def test_a_question_about_a_run_with_canaries(run: Path) -> None:
    """Attributes are those of the images; of canaries nobody asks."""
    source = open_source(read_config(run, TrainConfig))
    assert isinstance(source, JoinedSources)
    values = attribute_values(source, "text")
    assert values
    assert not [name for name in values if name.startswith(CANARIES)]
    with pytest.raises(DataError, match=r"--attribute got 'txt'.*did you mean 'text'"):
        attribute_values(source, "txt")


def test_an_adapter_made_elsewhere_with_canaries(
    run: Path, image_folder: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The manifest says who is in; folders of members and non-members do not."""
    file = shutil.copy(run / ADAPTER_FILE, tmp_path / "found.safetensors")
    told = ["audit", str(file), "--pretrained_model_name_or_path", "tiny", "--canaries_dir", str(folder), *FEW]
    told += ["--output_dir", str(tmp_path / "audit")]
    pools = ["--members", str(image_folder), "--nonmembers", str(folder)]
    assert main([*told, *pools]) == 2
    assert "--canaries_dir: --split_manifest says who is in" in capsys.readouterr().err
    plain = write_split(replace(split_of(run), canaries=None), tmp_path / "plain")
    assert main([*told, "--split_manifest", str(plain), "--train_data_dir", str(image_folder)]) == 2
    assert "has no canaries; leave it out, or give the manifest" in capsys.readouterr().err
    manifest = ["--split_manifest", str(run / "split.json"), "--train_data_dir", str(image_folder)]
    assert main([*told, *manifest]) in (0, 3)
    found = parse(tmp_path / "audit" / "audit.json", Audit).canaries
    split = split_of(run).canaries
    assert found is not None
    assert split is not None
    assert (found.inside, found.outside) == (len(split.members), 100 - len(split.members))


def test_too_few_or_not_to_be_used(
    image_folder: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for k in range(3):
        shutil.copy(folder / f"0000{k}.png", few)
        (few / f"0000{k}.txt").write_text("a pattern")
    for options, said in (
        (["--canaries_dir", few], "there are 3 canaries; allowed: 100 or more"),
        (["--canaries_dir", image_folder], "the same picture as"),
        (["--num_canaries", 20], "--num_canaries got 20; allowed: 100 or more"),
        (["--num_canaries", 100], "--num_canaries got 100; allowed: fewer than there are images, which is 60"),
        (["--num_canaries", 100, "--canaries_dir", folder], "are both given; give one of them"),
    ):
        output = ["--output_dir", str(tmp_path / "split")]
        assert main(["split", "--train_data_dir", str(image_folder), *map(str, options), *output]) == 2
        assert said in capsys.readouterr().err


def test_each_teacher_leaves_out_its_canaries_too(run: Path, tmp_path: Path) -> None:
    """Distill-LoRA: what is learned of a canary comes from a teacher that has not seen it."""
    split = split_of(run)
    config = replace(
        read_config(run, TrainConfig),
        objective="distill_lora",
        num_teachers=2,
        output_dir=str(tmp_path),
        mi_lambda=0.05,
    )
    check_teachers(config, split)
    fold_of = folds(split, 2, config.seed)
    assert fold_of.keys() == {s.digest for s in split.train}
    samples = read_samples(open_source(config))
    for k, teacher in enumerate(teacher_runs(config, split)):
        own = read_split(Path(teacher.split_manifest or ""), samples)
        assert {s.digest for s in own.train} == {digest for digest, fold in fold_of.items() if fold != k}


class Number(Attack):
    """Its signal is its score."""

    info = AttackInfo("Number", Access.GREY_BOX, "", "")

    def scorer(self, seed: int) -> StandardisedMean:
        return StandardisedMean()


def of_gaussian_mechanism(mu: float, seed: int, attacks: int = 3, count: int = 200) -> tuple[float, float]:
    """(mu, epsilon) that canaries prove where each is seen through noise of unit variance, ``mu`` higher
    if it is in; other attacks see noise alone."""
    rng = np.random.default_rng(seed)
    split = draw_canaries(made_up(count), seed)
    assert split is not None
    signals = {
        (f"attack {k}", cell): rng.normal(size=(split.sizes[cell], 1))
        + mu * (k == 0) * (not cell.endswith("nonmember"))
        for k in range(attacks)
        for cell in ATTACKED
    }
    named: dict[str, Attack] = {f"attack {k}": Number() for k in range(attacks)}
    found = judge_canaries(split, named, signals, [], delta=0.0, seed=seed)
    return found.one_run.mu or 0.0, found.one_run.value


def test_what_they_prove_of_the_gaussian_mechanism_is_true() -> None:
    """mu of at most the true one in 95 % of runs: more than 6 of 40 wrong have a chance of 0.3 % if that holds."""
    proved = [of_gaussian_mechanism(1.0, seed)[0] for seed in range(40)]
    assert sum(mu > 1.0 for mu in proved) <= 6
    assert np.median([of_gaussian_mechanism(3.0, seed)[0] for seed in range(8)]) > 1.0, "they prove something"
    assert sum(of_gaussian_mechanism(0.0, seed)[1] > 0 for seed in range(40)) <= 6


def test_the_manifest_keeps_them(tmp_path: Path) -> None:
    samples = made_up(120) + made_up(60, "")
    split = make_split(samples, SplitOptions())
    assert read_split(write_split(split, tmp_path), samples) == split
    content = json.loads((tmp_path / "split.json").read_text())
    one = content["canaries"]["test_member"].pop()
    content["canaries"]["test_nonmember"].append(one)
    (tmp_path / "split.json").write_text(json.dumps(content))
    with pytest.raises(Exception, match="was changed after it was sealed"):
        read_split(tmp_path / "split.json", samples)
