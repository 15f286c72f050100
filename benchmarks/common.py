"""What the scripts of this folder share: their options, their runs and the files that they write.

PyTorch is imported where it is needed: budget.py measures a process that would share its memory.
"""

from __future__ import annotations

import json
import shlex
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from smplora.config.monitor import UNWATCHED
from smplora.core.errors import ConfigError, listing
from smplora.core.files import write_json
from smplora.core.reading import read_json
from smplora.results.attack import GROUPS, Group, Numbers
from smplora.results.audit import Audit
from smplora.results.estimate import Estimate
from smplora.results.quality import Quality

if TYPE_CHECKING:
    import torch

    from smplora.config.train import TrainConfig
    from smplora.models.diffusion import LatentDiffusion

RESULTS = Path(__file__).parent / "results"
LEFT_OUT = (  # of the command line in a result: what changes no number, and positional words
    "results", "pictures", "folder", "root", "runs", "workers", "collect", "what",
)  # fmt: skip
RECIPE: dict[str, Any] = {  # the quickstart's, on 50 images a cell
    "aux_size": 50, "rank": 32, "lora_targets": "all", "learning_rate": 3e-3, "train_batch_size": 10,
}  # fmt: skip
MODELS = {
    "tiny": "the bundled model",
    "mid": "SD 1.5's configuration with narrower layers, 35 M parameters",
    "sd15": "SD 1.5's true configuration",
}
Summary = TypeVar("Summary")


def parser(script: str, description: str | None, *verbs: str) -> ArgumentParser:
    """Of a script of this folder.

    Args:
        script: its file.
        description: its docstring, which --help shows.
        verbs: commands of smplora whose options can be changed, each by an option of its name.
    """
    name = f"python benchmarks/{Path(script).name}"
    options = ArgumentParser(prog=name, description=description, formatter_class=RawDescriptionHelpFormatter)
    options.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON file")
    for verb in verbs:
        about = f"options of 'smplora {verb}' that take the place of those here, such as '{{seed: 1}}'"
        options.add_argument(f"--{verb}", type=yaml.safe_load, default={}, metavar="YAML", help=about)
    return options


def command(options: ArgumentParser, args: Namespace, *first: str, always: Sequence[str] = ()) -> str:
    """The command line that a result is made by, without folders.

    Args:
        first: the words before the options.
        always: options that are written also where they have their default.
    """
    words, changed = list(first), [n for n, value in vars(args).items() if value != options.get_default(n)]
    for name in dict.fromkeys([*always, *changed]):
        if name in LEFT_OUT:
            continue
        value = getattr(args, name)
        values = [*map(str, value)] if isinstance(value, (list, tuple)) else [_word(value)]
        dashes = values[0].startswith("-")  # argparse would take it for an option
        words += [f"--{name}={values[0]}"] if dashes else [f"--{name}", *values]
    return f"{options.prog} {shlex.join(words)}".strip()


def _word(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)


def record_of(
    options: ArgumentParser, args: Namespace, name: str, always: Sequence[str], **whole: Sequence[str]
) -> dict[str, Any]:
    """What NAME.json holds of the same command: several calls fill one file.

    Args:
        whole: options of which a call may name a part, with all of what they allow.
    """
    every = Namespace(**{**vars(args), **whole})
    path = args.results / f"{name}.json"
    before: dict[str, Any] = read_json(path) if path.exists() else {}
    fresh = {"command": command(options, every, always=always)}
    return before if before.get("command") == fresh["command"] else fresh


def write_result(folder: Path, name: str, record: dict[str, Any], *, show: bool = True) -> None:
    """Write ``NAME.json``, and print it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{name}.json", record)
    if show:
        print(json.dumps(record, indent=2), flush=True)


def train_config(images: Path, run: Path, **options: Any) -> TrainConfig:
    """The options of a run on the private digits, which are written to ``images`` unless they are there.

    Raises:
        ConfigError: options that do not go together.
    """
    from smplora.config.train import TrainConfig
    from smplora.data.digits import write_private_digits

    folders = {"train_data_dir": str(write_private_digits(images)), "output_dir": str(run)}
    return checked(TrainConfig(**{**folders, **UNWATCHED, **options}))


def checked(config: TrainConfig) -> TrainConfig:
    """The same.

    Raises:
        ConfigError: options that do not go together.
    """
    if problems := config.problems():
        raise ConfigError(listing("a run cannot start", problems))
    return config


def audited(**options: Any) -> Audit:
    """An audit, which is made unless it is there."""
    from smplora.audit.reuse import previous_audit
    from smplora.config.audit import AuditConfig
    from smplora.experiments.tasks import audit

    config = AuditConfig(**options)
    return previous_audit(config) or audit(config)


def evaluated(**options: Any) -> Quality:
    """An evaluation, which is made unless it is there."""
    from smplora.config.evaluate import EvaluateConfig
    from smplora.experiments.tasks import evaluate
    from smplora.quality.reuse import previous_quality

    config = EvaluateConfig(**options)
    return previous_quality(config) or evaluate(config)


def by_attack(audit: Audit, summarise: Callable[[Numbers], Summary]) -> dict[str, dict[Group, Summary]]:
    """``summarise`` of every attack on every group that it has numbers on."""
    return {a.name: {g: summarise(numbers) for g in GROUPS if (numbers := a.on(g))} for a in audit.attacks}


def ends(estimate: Estimate, digits: int) -> list[float | None]:
    """Value, low and high, rounded."""
    return [None if x is None else round(x, digits) for x in (estimate.value, estimate.low, estimate.high)]


def base_model(name: str, device: torch.device) -> LatentDiffusion:
    """One of ``MODELS``; but for ``tiny`` they have random weights, which cost what trained ones cost."""
    from smplora.models.load import load_model

    return {"sd15": sd15, "mid": mid}[name](device) if name != "tiny" else load_model(name, device)


def sd15(device: torch.device) -> LatentDiffusion:
    """Stable Diffusion 1.5's true configuration, random weights."""
    return random_sd(device, "SD 1.5's configuration", {}, {}, {})


def mid(device: torch.device) -> LatentDiffusion:
    """The same with narrower layers, for latents of 32 x 32."""
    unet = {"block_out_channels": (64, 128, 256, 256), "cross_attention_dim": 256, "sample_size": 32}
    vae = {"block_out_channels": (32, 32, 32, 32), "sample_size": 256}
    text = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
    return random_sd(device, "a narrower SD 1.5", unet, vae, text)


def random_sd(
    device: torch.device, name: str, unet: dict[str, Any], vae: dict[str, Any], text: dict[str, Any]
) -> LatentDiffusion:
    """SD 1.5's configuration with these changes, random weights."""
    import torch
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from smplora.models.diffusion import LatentDiffusion
    from smplora.models.single_file import CONFIGS, PADDING, clip_tokenizer
    from smplora.models.text import ClipText

    torch.manual_seed(0)
    folder = str(CONFIGS / "sd1")
    with device:
        denoiser = UNet2DConditionModel.from_config(
            {**UNet2DConditionModel.load_config(folder, subfolder="unet"), **unet}
        )
        decoder = AutoencoderKL.from_config({**AutoencoderKL.load_config(folder, subfolder="vae"), **vae})
        encoder = CLIPTextModel(CLIPTextConfig.from_pretrained(folder, subfolder="text_encoder", **text))
    for part in (denoiser, decoder, encoder):
        part.eval().requires_grad_(False)
    words = ClipText(encoder, clip_tokenizer(PADDING["sd1"][0]))
    scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    return LatentDiffusion(decoder, words, denoiser, scheduler, f"{name}, random weights", "random")
