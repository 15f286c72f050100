"""What leaves the machine: the files, the card, the upload, and that nothing of the images is in them."""

from __future__ import annotations

import json
import re
import shutil
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from huggingface_hub.errors import LocalTokenNotFoundError
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors import safe_open

from conftest import short_config
from smplora.adapters.files.read import read_adapter
from smplora.adapters.files.write import ADAPTER_FILE, KOHYA_FILE, public_name
from smplora.cli.main import main
from smplora.config.audit import AuditConfig
from smplora.config.evaluate import EvaluateConfig
from smplora.core.files import BUNDLED_FOLDER, write_json
from smplora.experiments.tasks import audit, evaluate, train
from smplora.publish.card import CARD, MARKER, write_card
from smplora.publish.publish import as_kohya
from smplora.runs.subject import find_subject

QUICK: dict[str, Any] = {"attacks": ["loss"], "num_timesteps": 2, "noise_pairs": 1}


@pytest.fixture
def run(trained_run: Path, tmp_path: Path) -> Path:
    """A finished run that a test may change."""
    return Path(shutil.copytree(trained_run, tmp_path / "run"))


def front_matter(card: str) -> dict[str, Any]:
    head = yaml.safe_load(card.split("---\n")[1])
    assert isinstance(head, dict)
    return head


def everything_in(path: Path) -> bytes:
    """A file's bytes; a picture must have no chunk that could hold compressed text."""
    content = path.read_bytes()
    if path.suffix != ".png":
        return content
    kinds, at = [], 8
    while at < len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        kinds.append(kind)
        at += 12 + length
    assert set(kinds) == {b"IHDR", b"IDAT", b"IEND"}, "a picture carries more than pixels"
    return content


def test_nothing_of_the_images_is_published(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Captions, file names, folders, base model's folder, user, machine, home and working directory are unique strings;
    every byte of what is published is searched for them."""
    home = tmp_path / "home-qzuserqz"
    images = home / "folder-qzimagesqz"
    images.mkdir(parents=True)
    for number in range(60):
        shutil.copy(image_folder / f"{number:04d}.png", images / f"name-qzfile{number:02d}qz.png")
        (images / f"name-qzfile{number:02d}qz.txt").write_text(f"caption-qzwords{number:02d}qz of a digit")
    shutil.copytree(BUNDLED_FOLDER, home / "model-qzbaseqz")
    for variable in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(variable, "login-qznameqz")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr("socket.gethostname", lambda: "host-qzhostqz")
    monkeypatch.setattr("platform.node", lambda: "host-qzhostqz")
    work = home / "work-qzcwdqz"
    work.mkdir()
    monkeypatch.chdir(work)

    path = "../model-qzbaseqz"
    settings = short_config(images, Path("run-qzrunqz"), pretrained_model_name_or_path=path, max_train_steps=3)
    run = train(settings, progress=False)
    audit(AuditConfig(adapter=str(run), **QUICK), progress=False)
    evaluate(EvaluateConfig(adapter=str(run), num_images=20, num_inference_steps=2), progress=False)
    told = PngInfo()
    told.add_text("parameters", "caption-qzwords00qz", zip=True)
    with Image.open(run / "quality" / "samples.png") as picture:
        picture.save("chosen-qzpictureqz.png", pnginfo=told)
    command = ["--adapter", str(run), "--sample_images", "[chosen-qzpictureqz.png]", "--license", "cc0-1.0"]
    assert main(["export", *command, "--output_dir", "out", "--instance_prompt", "a digit"]) == 0

    published = sorted(p.name for p in Path("out").iterdir())
    assert published == [CARD, "certificate.html", KOHYA_FILE, ADAPTER_FILE, "sample-1.png"]
    for file in [*Path("out").iterdir(), run / CARD, run / ADAPTER_FILE, run / KOHYA_FILE]:
        content = everything_in(file)
        assert not re.findall(rb"qz\w*qz", content), f"{file.name} tells too much"
        assert str(tmp_path).encode() not in content
        assert not re.findall(rb"20\d\d-\d\d-\d\d", content)
    assert re.findall(rb"qz\w*qz", (run / "split.json").read_bytes())
    head = front_matter((Path("out") / CARD).read_text())
    assert head["license"] == "cc0-1.0"
    assert head["instance_prompt"] == "a digit"
    assert "base_model" not in head
    assert head["widget"][0]["output"] == {"url": "sample-1.png"}


@pytest.mark.parametrize(
    ("given", "published"),
    [
        ("tiny", "the bundled model"),
        ("stabilityai/stable-diffusion-2-1", "stabilityai/stable-diffusion-2-1"),
        ("/home/anna/models/sd15", ""),
        ("../models/sd15", ""),
        ("models/private/sd15", ""),
        ("anna.safetensors", ""),
        ("folder", ""),
        ("folder/inner", ""),
    ],
)
def test_base_models_are_named_by_hub_ids_only(
    given: str, published: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert public_name(given) == published


def test_the_card_follows_the_audit(run: Path, image_folder: Path) -> None:
    before = (run / CARD).read_text()
    assert "Not audited." in before
    assert front_matter(before)["library_name"] == "diffusers"
    found = audit(AuditConfig(adapter=str(run), train_data_dir=str(image_folder), **QUICK), progress=False)
    after = (run / CARD).read_text()
    assert "Not audited" not in after
    assert found.verdict.sentence in after
    for attack in found.attacks:
        auc = attack.test.auc
        assert f"| {attack.title} | {attack.access} | {auc.value:.2f} [{auc.low:.2f}, " in after
    assert "What these numbers do not cover" in after
    (entry,) = front_matter(after)["model-index"]
    metrics = {r["dataset"]["split"].split()[0]: r["metrics"][0] for r in entry["results"]}
    assert metrics["test"]["value"] == pytest.approx(found.numbers("test").auc.value, abs=1e-4)
    assert metrics["aux"]["args"]["low"] == pytest.approx(found.numbers("aux_members").auc.low, abs=1e-4)
    assert "model-index" not in front_matter(before)
    assert not [line for line in after.splitlines() if line.startswith("|") and not line.endswith("|")]


def test_an_audit_of_another_adapter_does_not_count(run: Path) -> None:
    (run / "audit").mkdir()
    write_json(run / "audit" / "audit.json", {"subject": {"adapter_sha256": "0" * 64}})
    assert main(["export", "--adapter", str(run), "--output_dir", str(run.parent / "out")]) == 0
    assert "Not audited in this version." in (run.parent / "out" / CARD).read_text()


def test_an_own_card_is_kept(run: Path) -> None:
    own = (run / CARD).read_text().replace(MARKER, "") + "My own words.\n"
    (run / CARD).write_text(own)
    write_card(find_subject(str(run)))
    assert (run / CARD).read_text() == own
    assert main(["export", "--adapter", str(run), "--output_dir", str(run.parent / "out")]) == 0
    assert (run.parent / "out" / CARD).read_text() == own


def test_checkpoints_are_published_in_both_layouts(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, out = run / "checkpoints" / "checkpoint-3", tmp_path / "out"
    assert main(["export", "--adapter", str(checkpoint), "--output_dir", str(out), "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"folder": str(out), "files": [ADAPTER_FILE, KOHYA_FILE, CARD]}
    assert "warning: this adapter was not audited" in printed.err
    assert as_kohya(read_adapter(run / ADAPTER_FILE)) == (run / KOHYA_FILE).read_bytes()
    assert (out / ADAPTER_FILE).read_bytes() == (checkpoint / ADAPTER_FILE).read_bytes()
    with safe_open(out / KOHYA_FILE, "pt") as file:
        assert file.metadata()["ss_network_dim"] == "4"
    assert "from 3 steps of training" in (out / CARD).read_text()
    assert main(["export", "--adapter", str(checkpoint), "--output_dir", str(out)]) == 0  # an export may be repeated
    assert main(["export", "--adapter", str(checkpoint), "--output_dir", str(run)]) == 2
    assert "holds other files" in capsys.readouterr().err


class Hub:
    """Stands in for ``HfApi``; remembers what it was asked."""

    def __init__(self, public: bool = False, error: Exception | None = None) -> None:
        self.public, self.error = public, error
        self.uploaded: dict[str, bytes] = {}
        self.made: dict[str, Any] = {}

    def create_repo(self, repo_id: str, **options: Any) -> str:
        if self.error:
            raise self.error
        self.made = {"repo_id": repo_id, **options}
        return f"https://huggingface.co/{repo_id}"

    def repo_info(self, repo_id: str) -> SimpleNamespace:
        return SimpleNamespace(private=not self.public)

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> None:
        assert "/" not in commit_message
        self.uploaded = {str(p.relative_to(folder_path)): p.read_bytes() for p in Path(folder_path).rglob("*")}


def push(hub: Hub, monkeypatch: pytest.MonkeyPatch, run: Path, *more: str) -> int:
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    return main(["push", "--adapter", str(run), "--repo_id", "anna/my-adapter", *more])


def test_push(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    hub = Hub()
    assert push(hub, monkeypatch, run) == 0
    assert hub.made == {"repo_id": "anna/my-adapter", "private": True, "exist_ok": True}
    assert hub.uploaded.keys() == {ADAPTER_FILE, KOHYA_FILE, CARD}
    card = hub.uploaded[CARD].decode()
    assert 'load_lora_weights("anna/my-adapter"' in card
    assert "# my-adapter" in card
    printed = capsys.readouterr().err
    assert printed.index("not audited") < printed.index(ADAPTER_FILE) < printed.index("published: https://")


def test_push_dry_run(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    hub = Hub()
    assert push(hub, monkeypatch, run, "--dry_run") == 0
    assert not hub.made
    assert not hub.uploaded
    printed = capsys.readouterr().err
    assert "library_name: diffusers" in printed
    assert "nothing was uploaded" in printed


def test_push_does_not_publish_by_accident(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = Hub(public=True)
    assert push(hub, monkeypatch, run) == 2
    assert "which is public; --private false publishes there" in capsys.readouterr().err
    assert not hub.uploaded
    assert push(hub, monkeypatch, run, "--private", "false") == 0
    assert hub.made["private"] is False
    assert hub.uploaded


def test_push_without_rights(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert push(Hub(error=LocalTokenNotFoundError("Token is required")), monkeypatch, run) == 2
    assert "the hub did not take it: Token is required; 'hf auth login'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repo_id", "adapter"], "--repo_id got 'adapter'; allowed: user/name"),
        ([], "--repo_id is missing"),
        (["--repo_id", "a/b", "--base_model", "/models/sd"], "--base_model got '/models/sd'; allowed: a hub id"),
        (["--repo_id", "a/b", "--sample_images", "[none.png]"], "--sample_images got 'none.png', which is not a file"),
    ],
)
def test_bad_options(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", "--adapter", "x", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_picture_that_is_none(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_text("no picture")
    images = f"[{tmp_path / 'a.png'}]"
    assert main(["export", "--adapter", str(run), "--output_dir", str(tmp_path / "o"), "--sample_images", images]) == 2
    assert "cannot be read as a picture" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
