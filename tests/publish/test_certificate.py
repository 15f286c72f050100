"""A certificate says what an audit found, nothing of the images, and ``smplora verify`` sees what was changed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from markupsafe import escape

from smplora.adapters.files import ADAPTER_FILE
from smplora.cli.main import main
from smplora.report.certificate import NAME, page, read
from smplora.results.certificate import Certificate

QUICK = ["--attacks", "[loss]", "--num_timesteps", "2", "--noise_pairs", "1", "--memorisation", "false"]


@pytest.fixture(scope="module")
def run(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = Path(shutil.copytree(trained_run, tmp_path_factory.mktemp("certificate") / "run"))
    assert main(["audit", str(run), *QUICK]) == 0
    return run


def certificate(run: Path) -> Certificate:
    return read((run / "audit" / NAME).read_text(encoding="utf-8"))


def test_it_says_what_the_audit_found(run: Path) -> None:
    audit = json.loads((run / "audit" / "audit.json").read_text())
    found = certificate(run)
    assert (found.verdict, found.level) == (audit["verdict"]["sentence"], audit["verdict"]["level"])
    assert found.adapter_sha256 == audit["subject"]["adapter_sha256"]
    assert [one.title for one in found.attacks] == [one["title"] for one in audit["attacks"]]
    assert found.attacks[0].test.value == audit["attacks"][0]["test"]["auc"]["value"]
    assert found.cells == {cell: n for cell, n in audit["split"]["cells"].items() if cell != "reference"}
    assert found.strongest["test"].p_corrected == audit["strongest"]["test"]["p_corrected"]
    assert any("shadow models" in limit for limit in found.limits)


def test_nothing_of_the_images_is_in_it(run: Path) -> None:
    text = (run / "audit" / NAME).read_text(encoding="utf-8")
    split = json.loads((run / "split.json").read_text())
    files = [image["file"] for images in split["cells"].values() for image in images]
    assert not [name for name in files if name in text]
    assert split["seal"] not in text, "whoever has the pool could try which division it is of"
    assert not [image["digest"] for images in split["cells"].values() for image in images if image["digest"] in text]
    assert "data:image" not in text
    assert str(run) not in text


def test_it_is_about_one_adapter(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(run / "audit" / NAME)
    assert main(["verify", path]) == 0  # the run that it lies in
    assert main(["verify", path, "--adapter", str(run / ADAPTER_FILE), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["adapter_sha256"] == certificate(run).adapter_sha256
    assert "it is not signed" in err
    assert main(["verify", path, "--adapter", str(run / "kohya_lora_weights.safetensors")]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(run / "audit")
        assert main(["verify", NAME]) == 0
    other = tmp_path / ADAPTER_FILE
    other.write_bytes((run / ADAPTER_FILE).read_bytes() + b" ")
    assert main(["verify", path, "--adapter", str(other)]) == 2
    assert "is about another adapter" in capsys.readouterr().err
    assert main(["verify", path, "--adapter", str(tmp_path / "none")]) == 2
    assert "which does not exist" in capsys.readouterr().err
    shutil.copyfile(path, tmp_path / NAME)
    other.unlink()
    assert main(["verify", str(tmp_path / NAME)]) == 2
    assert "name its .safetensors file, or the run" in capsys.readouterr().err


def test_an_adapter_made_elsewhere_is_not_named(run: Path) -> None:
    from smplora.report.certificate import certificate_of
    from smplora.results.subjects import collect

    (subject,) = collect([run])
    about = replace(subject.audit.subject, objective="unknown", label="portraits_of_anna.safetensors")
    told = certificate_of(replace(subject, label=about.label, audit=replace(subject.audit, subject=about)), {})
    assert "anna" not in page(told)


def test_a_checkpoint_is_known_by_the_layout_that_an_export_makes(run: Path, tmp_path: Path) -> None:
    checkpoint = next((run / "checkpoints").glob("checkpoint-*"))
    assert not (checkpoint / "kohya_lora_weights.safetensors").exists()
    assert main(["audit", str(checkpoint), *QUICK]) == 0
    assert main(["export", str(checkpoint), "--output_dir", str(tmp_path / "out")]) == 0
    for name in (ADAPTER_FILE, "kohya_lora_weights.safetensors"):
        assert main(["verify", str(tmp_path / "out" / NAME), "--adapter", str(tmp_path / "out" / name)]) == 0


def test_an_export_carries_it(run: Path, tmp_path: Path) -> None:
    assert main(["export", str(run), "--output_dir", str(tmp_path / "out")]) == 0
    assert main(["verify", str(tmp_path / "out" / NAME)]) == 0
    assert main(["export", str(run), "--output_dir", str(tmp_path / "out")]) == 0  # again


@pytest.mark.parametrize("where", ["held", "shown", "gone"])
def test_what_was_changed_is_seen(where: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (run / "audit" / NAME).read_text(encoding="utf-8")
    verdict = certificate(run).verdict
    held = text.rindex(verdict)
    changed = {
        "held": text[:held] + "No leak at all." + text[held + len(verdict) :],
        "shown": text.replace(str(escape(verdict)), "No leak at all.", 1),
        "gone": "<html></html>",
    }[where]
    (tmp_path / NAME).write_text(changed, encoding="utf-8")
    assert main(["verify", str(tmp_path / NAME), "--adapter", str(run)]) == 2
    reason = {"held": "was changed after", "shown": "what it shows is not what it holds", "gone": "no certificate"}
    assert reason[where] in capsys.readouterr().err


def test_text_from_outside_cannot_end_the_record(run: Path) -> None:
    hostile = replace(certificate(run), adapter="</script><script>alert(1)</script>").sealed()
    assert read(page(hostile)) == hostile
    assert "<script>alert" not in page(hostile)
