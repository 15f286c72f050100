"""Nothing but ``push`` and what is asked for touches a network, and ``--offline`` makes sure of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from smplora.cli.commands import VERBS
from smplora.cli.main import may_use_network
from smplora.core.files import BUNDLED_FOLDER
from smplora.core.offline import HUB_SWITCHES, TELEMETRY, hub

WATCHED = """
import gc, json, sys
gc.disable()  # nothing lives long here
def watch(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.sendto"):
        raise SystemExit(f"NETWORK {event} {arguments}")
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        raise SystemExit(f"NETWORK {event} {arguments}")
sys.addaudithook(watch)
from smplora.cli.main import main
for arguments, expected in json.loads(sys.argv[1]):
    status = main(arguments)
    if status != expected:
        sys.exit(f"{status} instead of {expected}: {arguments}")
"""


def python(program: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "SMPLORA_OFFLINE")
    environment = {k: v for k, v in os.environ.items() if k not in names} | variables
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


HUB_ID = "someone/a-model"


@pytest.fixture
def hub_cache(tmp_path: Path) -> Path:
    """A HF_HOME whose cache has the bundled model under a hub id, and nothing else."""
    model = tmp_path / "hf" / "hub" / "models--someone--a-model"
    commit = "0" * 40
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(commit)
    shutil.copytree(BUNDLED_FOLDER, model / "snapshots" / commit)
    return tmp_path / "hf"


def test_no_command_touches_a_network(image_folder: Path, hub_cache: Path, tmp_path: Path) -> None:
    """Not even without --offline: every look-up of a name and every connection ends the program, whoever asks. With the
    bundled model, one in the hub's cache, and a name that is nowhere."""
    data = ["--train_data_dir", str(image_folder)]
    small = [*data, "--aux_size", "10", "--max_train_steps", "2", "--train_batch_size", "2", "--device", "cpu"]
    attacks = ["--attacks", "[loss]", "--num_timesteps", "1", "--noise_pairs", "1"]
    images = ["--num_images", "20", "--num_inference_steps", "1"]
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(next(image_folder.glob("*.png")), bare)
    commands: list[tuple[list[str], int]] = []
    for name, model in {"tiny": "tiny", "hub": HUB_ID, "typo": "someone/a-modle"}.items():
        run, base = str(tmp_path / name), ["--pretrained_model_name_or_path", model]
        status = 2 if name == "typo" else 0
        commands += [
            (["train", *small, *base, "--output_dir", run, "--objective", "smp_lora"], status),
            (["audit", "--adapter", run, *attacks], status),
            (["properties", "--adapter", run, "--plan"], status),
            (["evaluate", "--adapter", run, *images], status),
            (["export", "--adapter", run, "--output_dir", f"{run}-published"], status),
            (["push", "--adapter", run, "--repo_id", "anna/adapter", "--dry_run"], status),
            (["report", "--runs", f"[{run}]", "--output", f"{run}.html"], status),
            (["sweep", *small, *base, "--output_dir", f"{run}-sweep", "--seeds", "[0]", "--dry_run"], status),
        ]
    typo = ["--features", "[someone/an-encoder]", "--num_images", "20"]
    commands += [
        (["evaluate", "--adapter", str(tmp_path / "tiny"), *typo], 2),
        (["caption", str(bare), "--caption_model", "someone/a-captioner"], 2),
        (["train", "--dataset_name", "someone/a-data-set", "--output_dir", str(tmp_path / "set")], 2),
        (["quickstart", *data, "--output_dir", str(tmp_path / "quick"), "--aux_size", "99"], 2),
        (["reproduce", "table_1", "--quick", "--dry_run", "--output_dir", str(tmp_path / "paper")], 0),
        (["dataset", "celeba_small", "--source", str(tmp_path), "--output_dir", str(tmp_path / "celeba")], 2),
        (["split", *data, "--output_dir", str(tmp_path / "split")], 0),
        (["cache"], 0),
        (["verify", str(tmp_path / "tiny" / "audit" / "certificate.html")], 0),
    ]
    assert {arguments[0] for arguments, _ in commands} == VERBS.keys()
    done = python(WATCHED, json.dumps(commands), HF_HOME=str(hub_cache))
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "hub.html").exists()


def test_what_was_asked_for_may_go_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """--allow_download, push and trackers lift the switches, in the same process too; nobody is told who asks."""
    for name in (*HUB_SWITCHES, TELEMETRY):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    import huggingface_hub.constants as constants

    with hub(False):
        assert constants.HF_HUB_OFFLINE
        assert os.environ["TRANSFORMERS_OFFLINE"] == "1"
        with hub(True):
            assert constants.HF_HUB_OFFLINE, "it is asked for inside of what is not"
    with hub(True):
        assert not constants.HF_HUB_OFFLINE
        assert constants.HF_HUB_DISABLE_TELEMETRY
    assert not constants.HF_HUB_OFFLINE
    assert "TRANSFORMERS_OFFLINE" not in os.environ


@pytest.mark.parametrize(
    ("verb", "options", "needs"),
    [
        ("train", {"report_to": "tensorboard"}, False),
        ("train", {"report_to": "wandb"}, True),
        ("train", {"allow_download": True}, True),
        ("push", {"dry_run": False}, True),
        ("push", {"dry_run": True}, False),
        ("audit", {}, False),
    ],
)
def test_what_asks_for_the_network(verb: str, options: dict[str, object], needs: bool) -> None:
    assert may_use_network(verb, SimpleNamespace(**{"dry_run": False, **options})) == needs


BLOCKED = """
import socket, sys
from smplora.cli import commands, main as cli
from smplora.config.data import CacheConfig
def go_out(options):
    print("HUB", __import__("os").environ["HF_HUB_OFFLINE"])
    {use}
commands.VERBS["cache"] = commands.Verb(CacheConfig, "__main__:go_out", "")
sys.exit(cli.main(sys.argv[1:]))
"""
USES = {
    "look-up": "socket.getaddrinfo('example.org', 443)",
    "urllib": "import urllib.request; urllib.request.urlopen('https://example.org')",
    "address": "socket.create_connection(('192.0.2.1', 80))",
    "address, IPv6": "socket.socket(socket.AF_INET6).connect(('2001:db8::1', 80))",
    "datagram": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
    "hub": "import huggingface_hub; huggingface_hub.HfApi().model_info('user/name')",
    "torch": "import torch.hub; torch.hub.download_url_to_file('https://example.org', '/nowhere')",
    "turned into another error": """
    try:
        socket.getaddrinfo('example.org', 443)
    except OSError as error:
        raise ValueError('no such model') from error""",
}


@pytest.mark.parametrize("use", USES)
def test_offline_blocks_and_names(use: str) -> None:
    for arguments in (["--offline", "cache"], ["cache", "--offline"])[: 2 if use == "look-up" else 1]:
        done = python(BLOCKED.format(use=USES[use]), *arguments)
        assert done.returncode == 2, done.stderr
        assert done.stdout == "HUB 1\n"
        assert "smplora: --offline: " in done.stderr
        assert " wanted the network (" in done.stderr
        assert done.stderr.count("\n") == 1
        if use in ("hub", "torch"):
            assert f"--offline: {'huggingface_hub' if use == 'hub' else 'torch'} " in done.stderr


def test_this_machine_is_no_network() -> None:
    """Unix sockets and the loopback stay open: TensorBoard, a tracker's helper, processes that train together."""
    use = """
    server = socket.create_server(("localhost", 0))
    socket.create_connection(server.getsockname()).close()
    first, second = socket.socketpair()
    first.sendall(b"x")
    import torch.distributed
    torch.distributed.init_process_group("gloo", init_method="tcp://127.0.0.1:0", rank=0, world_size=1)
    torch.distributed.barrier()"""
    done = python(BLOCKED.format(use=use), "--offline", "cache")
    assert done.returncode == 0, done.stderr


def test_the_surroundings_can_ask_for_it() -> None:
    """As a variable it reaches every process that a command starts."""
    use = """
    import subprocess
    program = "from smplora.core import offline; import socket; offline.is_offline() and offline.block(); "
    program += "socket.getaddrinfo('example.org', 80)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    print(done.stderr.splitlines()[-1])"""
    done = python(BLOCKED.format(use=use), "cache", SMPLORA_OFFLINE="1")
    assert "wanted the network (example.org)" in done.stdout


def test_python_obeys_too() -> None:
    """The functions of smplora.api are the same commands."""
    program = """
import socket
from smplora import api
from smplora.cli import commands
from smplora.config.audit import ReportConfig
def go_out(options):
    socket.getaddrinfo('example.org', 443)
commands.VERBS["report"] = commands.Verb(ReportConfig, "__main__:go_out", "")
api.report(["run"])"""
    done = python(program, SMPLORA_OFFLINE="1")
    assert "OfflineError: --offline: " in done.stderr
    assert "wanted the network (example.org)" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["push", "--adapter", "x", "--repo_id", "a/b", "--offline"], "--offline: 'smplora push' uploads and needs"),
        (
            [
                "--offline",
                "train",
                "--train_data_dir",
                ".",
                "--pretrained_model_name_or_path",
                "a/b",
                "--allow_download",
            ],
            "--offline: --allow_download fetches from the hub and needs the network",
        ),
        (["--offline=maybe", "cache"], "--offline got 'maybe'; allowed: true, false"),
    ],
)
def test_contradictions(arguments: list[str], message: str) -> None:
    done = python("import sys; from smplora.cli.main import main; sys.exit(main(sys.argv[1:]))", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
