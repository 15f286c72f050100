"""Nothing but ``push`` and what is asked for touches a network, and ``--offline`` makes sure of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WATCHED = """
import json, os, socket, sys
def refuse(*arguments, **options):
    raise SystemExit(f"NETWORK {arguments}")
real = socket.socket.connect
socket.socket.connect = lambda own, address: real(own, address) if own.family == socket.AF_UNIX else refuse(address)
socket.socket.connect_ex = socket.socket.sendto = refuse
socket.getaddrinfo = socket.gethostbyname = socket.create_connection = refuse
from smplora.cli.main import main
for arguments in json.loads(sys.argv[1]):
    if main(arguments):
        sys.exit(f"failed: {arguments}")
"""


def python(program: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "SMPLORA_OFFLINE")
    environment = {k: v for k, v in os.environ.items() if k not in names} | variables
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_no_command_touches_a_network(image_folder: Path, tmp_path: Path) -> None:
    """Not even without --offline: a process in which every connection and look-up of a name ends the program."""
    run = str(tmp_path / "run")
    small = ["--aux_size", "10", "--max_train_steps", "2", "--train_batch_size", "2", "--device", "cpu"]
    attacks = ["--attacks", "[loss]", "--num_timesteps", "1", "--noise_pairs", "1"]
    commands = [
        ["train", "--train_data_dir", str(image_folder), "--output_dir", run, "--objective", "smp_lora", *small],
        ["audit", "--adapter", run, *attacks],
        ["evaluate", "--adapter", run, "--num_images", "20", "--num_inference_steps", "1"],
        ["report", "--runs", f"[{run}]", "--output", str(tmp_path / "report.html")],
        ["export", "--adapter", run, "--output_dir", str(tmp_path / "out")],
        ["push", "--adapter", run, "--repo_id", "anna/adapter", "--dry_run"],
    ]
    done = python(WATCHED, json.dumps(commands))
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "report.html").exists()


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
            ["--offline", "train", "--train_data_dir", ".", "--allow_download"],
            "--offline: --allow_download fetches from the hub and needs the network",
        ),
        (["--offline=maybe", "cache"], "--offline got 'maybe'; allowed: true, false"),
    ],
)
def test_contradictions(arguments: list[str], message: str) -> None:
    done = python("import sys; from smplora.cli.main import main; sys.exit(main(sys.argv[1:]))", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
