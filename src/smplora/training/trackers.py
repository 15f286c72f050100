"""Experiment trackers through accelerate: which are asked for and installed, and what they are kept from collecting.

Only numbers go there, and validation images where ``--log_images`` asks for it: no options, paths or captions.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from smplora.core import offline
from smplora.core.errors import ConfigError

TRACKERS = ("tensorboard", "wandb", "trackio")
KEPT_HERE = ("offline", "dryrun", "disabled")  # values of WANDB_MODE
PROJECT = "smplora"


def chosen_trackers(report_to: str | None) -> list[str]:
    """The trackers that ``--report_to`` means.

    Raises:
        ConfigError: the one that is asked for is not installed, or none is, or there is to be no network and it uses
            one: W&B's does so below Python, where ``--offline`` does not reach.
    """
    if report_to in (None, "none"):
        return []
    installed = [name for name in TRACKERS if find_spec(name) is not None]
    if report_to == "all":
        if not installed:
            raise ConfigError(f"--report_to got 'all', and none is installed: pip install smplora[{TRACKERS[0]}]")
        chosen = installed
    elif report_to in installed:
        chosen = [str(report_to)]
    else:
        raise ConfigError(f"--report_to got '{report_to}', which is not installed: pip install smplora[{report_to}]")
    stays_here = {"tensorboard": True, "wandb": os.environ.get("WANDB_MODE") in KEPT_HERE, "trackio": False}
    outside = [name for name in chosen if not stays_here[name]]
    if outside and offline.is_offline():
        raise ConfigError(
            f"--offline: --report_to got '{report_to}', and {' and '.join(outside)} may use the network; "
            f"take tensorboard{', or set WANDB_MODE=offline' * ('wandb' in outside)}"
        )
    return chosen


def tracker_options(names: list[str], folder: Path) -> dict[str, Any]:
    """The options of ``accelerate.Accelerator``; trackers that keep files keep them in the run folder's logs/."""
    return {"log_with": names, "project_dir": folder / "logs"} if names else {}


@contextmanager
def nameless_host() -> Iterator[None]:
    """Inside, this machine has no name of its own: TensorBoard makes it a part of the names of its files."""
    before = socket.gethostname
    socket.gethostname = lambda: PROJECT
    try:
        yield
    finally:
        socket.gethostname = before


def init_options(names: list[str], folder: Path) -> dict[str, Any]:
    """The options of ``Accelerator.init_trackers``.

    W&B would collect the command line, the working directory, the host and user names, the repository and what is
    printed: all of it is switched off. The name that it shows for a run is its own invention.
    """
    options: dict[str, Any] = {name: {} for name in names}
    if names:  # whatever mode their files get, nobody else can come near: --log_images puts pictures there
        (folder / "logs").mkdir(mode=0o700, exist_ok=True)
    if "wandb" in names:
        import wandb

        settings = wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            host="",
            program="",
            save_code=False,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        options["wandb"] = {"dir": str(folder / "logs"), "settings": settings}
    return options
