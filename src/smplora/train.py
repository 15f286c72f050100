"""The training loop (paper, Algorithms 1 and 2), top to bottom, on accelerate. Resuming is exact.

Every random number is a function of (seed, name, step): a killed and resumed run draws what it would have drawn.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from smplora.adapt import ADAPTATIONS
from smplora.adapt.lora import TARGETS, LoRAAdaptation
from smplora.batches import join, take, training_draw
from smplora.config import TrainConfig
from smplora.contracts import Batch, Objective
from smplora.data import encode, read_folder
from smplora.diffusion import LatentDiffusion, adaptation_loss
from smplora.errors import CheckpointError, ConfigError, SplitError, TrainingError
from smplora.export import ADAPTER_FILE, KOHYA_FILE, adapter_bytes, kohya_bytes, write_adapter
from smplora.models import choose_device, load_model
from smplora.objectives import OBJECTIVES
from smplora.progress import bar
from smplora.proxy import WEIGHT_DECAY, ProxyAttackModel, ascend, log_membership
from smplora.registry import load
from smplora.run import Checkpoint, RunFolder, check_place, check_settings, say
from smplora.split import MANIFEST, Split, make_split, read_split, write_split
from smplora.streams import stream_seed


@dataclass
class Setup:
    """Everything that the loop works on."""

    accelerator: Accelerator
    model: LatentDiffusion
    adaptation: LoRAAdaptation
    parameters: list[nn.Parameter]
    optimizer: Any
    objective: Objective
    proxy: nn.Module
    proxy_optimizer: Any
    train: Batch
    aux_member: Batch
    aux_nonmember: Batch
    steps: int

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All state, for a checkpoint."""
        state = {
            "adapter_state": self.adaptation.state_dict(self.model.denoiser),
            "optimizer": optimizer_tensors(self.optimizer),
        }
        if self.objective.uses_proxy:
            proxy = {name: t.detach().cpu().contiguous() for name, t in self.proxy.state_dict().items()}
            state |= {"proxy": proxy, "proxy_optimizer": optimizer_tensors(self.proxy_optimizer)}
        return state

    def restore(self, tensors: dict[str, dict[str, Tensor]]) -> None:
        """Put a checkpoint's state back."""
        missing = self.tensors().keys() - tensors.keys()
        if missing:
            raise KeyError(f"it lacks {', '.join(sorted(missing))}")
        self.adaptation.load_state_dict(self.model.denoiser, tensors["adapter_state"])
        load_optimizer_tensors(self.optimizer, tensors["optimizer"])
        if self.objective.uses_proxy:
            self.proxy.load_state_dict(tensors["proxy"])
            load_optimizer_tensors(self.proxy_optimizer, tensors["proxy_optimizer"])


def train(config: TrainConfig, *, progress: bool = True) -> Path:
    """``smplora train``: adapt the base model to the members of the split; returns the run folder.

    Raises:
        UserError: anything that the user can mend, before the first step where possible.
        OSError: the run folder cannot be written.
    """
    folder = RunFolder(Path(config.output_dir))
    check_place(folder.path)
    folder.check_resume(config.resume_from_checkpoint)
    device = choose_device(config.device)
    split = load_split(config, folder.path / MANIFEST)
    if config.report_to == "tensorboard":
        _require_tensorboard()
    model = load_model(config.pretrained_model_name_or_path, device)
    config = resolved(config, model, split)
    cut = model.text.cut([s.caption for s in split.train])
    if cut and progress:
        say(f"{cut} of {len(split.train)} captions are longer than the text encoder reads; their ends are cut off")
    check_settings(folder.path, config)
    with folder.locked():  # from here on files are written
        folder.open(config, model.digest)
        write_split(split, folder.path)
        if folder.done is None or config.resume_from_checkpoint != "latest":
            checkpoint = folder.resume(config.resume_from_checkpoint)
            setup = prepare(config, model, split, folder)
            if checkpoint:
                restore(setup, checkpoint, folder)
                if progress:
                    say(f"resuming {folder.path} at step {checkpoint.step}")
            optimise(config, setup, folder, checkpoint.step if checkpoint else 0, progress)
        elif progress:
            say(f"{folder.path} is complete")
    if config.json:
        print(json.dumps({"run": str(folder.path), **(folder.done or {})}))
    return folder.path


def restore(setup: Setup, checkpoint: Checkpoint, folder: RunFolder) -> None:
    """Put a checkpoint's state back.

    Raises:
        CheckpointError: something is missing from it, or does not fit.
    """
    try:
        setup.restore(checkpoint.tensors)
    except (KeyError, RuntimeError, ValueError) as error:
        name = folder.checkpoints / f"checkpoint-{checkpoint.step}"
        reason = error.args[0] if error.args else error
        raise CheckpointError(f"{name} is damaged ({reason}); delete it to resume from the one before") from error


def load_split(config: TrainConfig, sealed: Path) -> Split:
    """The split that the run was started with, if it was; else that of ``--split_manifest``, or a new one.

    Raises:
        SplitError: images or captions changed since, or the manifest is another one.
    """
    samples = read_folder(config)
    given = read_split(Path(config.split_manifest), samples) if config.split_manifest else None
    if not sealed.exists():
        return given or make_split(samples, config)
    started = read_split(sealed, samples)
    if given and given.seal != started.seal:
        raise SplitError(
            f"--split_manifest '{config.split_manifest}' is not the split that '{sealed.parent}' was started with"
        )
    return started


def resolved(config: TrainConfig, model: LatentDiffusion, split: Split) -> TrainConfig:
    """``config`` with every default that depends on model or data filled in, as the run folder records it."""
    steps = -(-config.num_train_epochs * len(split.train) // config.train_batch_size)
    sizes: dict[str, Any] = {}
    if not config.split_manifest:
        cells = {"reference_size": "reference"}
        if config.split_protocol == "fixed":
            cells |= {"aux_size": "aux_member", "test_size": "test_member"}
        given = {option: getattr(config, option) for option in cells}
        sizes = {option: split.sizes[cells[option]] if size is None else size for option, size in given.items()}
    return replace(
        config,
        lora_alpha=config.lora_alpha or float(config.rank),
        resolution=config.resolution or model.resolution,
        max_train_steps=config.max_train_steps or steps,
        **sizes,
    )


def prepare(config: TrainConfig, model: LatentDiffusion, split: Split, folder: RunFolder) -> Setup:
    """Cache latents and embeddings, attach the adapter, make the proxy."""
    accelerator = Accelerator(
        cpu=model.device.type == "cpu",
        device_placement=False,  # everything is on --device already
        log_with=config.report_to,
        project_dir=folder.path / "logs" if config.report_to else None,
    )
    if config.report_to:
        accelerator.init_trackers("smplora")
    cells = {
        cell: encode(model, Path(config.train_data_dir or ""), split.cells[cell], config.resolution or model.resolution)
        for cell in ("aux_member", "test_member", "aux_nonmember")
    }

    torch.manual_seed(stream_seed(config.seed, "initialisation"))
    adaptation = load(ADAPTATIONS, config.adaptation, "adaptation").from_config(config)
    parameters = adaptation.attach(model.denoiser)
    optimizer = torch.optim.AdamW(
        parameters, lr=config.learning_rate, weight_decay=config.adam_weight_decay, fused=True
    )
    elements = cells["aux_member"].mean[0].numel()
    proxy = ProxyAttackModel(
        elements,
        inputs=config.proxy_input,
        sees_timestep=config.proxy_sees_timestep,
        num_train_timesteps=model.num_train_timesteps,
    ).to(model.device)
    proxy_optimizer = torch.optim.Adam(
        proxy.parameters(), lr=config.proxy_learning_rate, weight_decay=WEIGHT_DECAY, fused=True
    )
    model.denoiser, optimizer, proxy, proxy_optimizer = accelerator.prepare(
        model.denoiser, optimizer, proxy, proxy_optimizer
    )
    model.denoiser.eval()  # SD's U-Net has no dropout; the adapter's is off
    train_batch = join(cells["aux_member"], cells["test_member"])
    return Setup(
        accelerator=accelerator,
        model=model,
        adaptation=adaptation,
        parameters=parameters,
        optimizer=optimizer,
        objective=load(OBJECTIVES, config.objective, "objective").from_config(config),
        proxy=proxy,
        proxy_optimizer=proxy_optimizer,
        train=train_batch,
        aux_member=cells["aux_member"],
        aux_nonmember=cells["aux_nonmember"],
        steps=config.max_train_steps or 0,
    )


def optimise(config: TrainConfig, setup: Setup, folder: RunFolder, start: int, progress: bool) -> None:
    """The loop. Per step: the proxy climbs the gain on a fresh draw of aux members and non-members, then the adapter
    descends its objective on a fresh batch of the training set."""
    model, objective, seed, b = setup.model, setup.objective, config.seed, config.train_batch_size
    log, began = MeanLog(), time.perf_counter()
    with bar(setup.steps, f"{objective_title(config)}", initial=start, show=progress) as display:
        for step in range(start, setup.steps):
            # dropout of the proxy is the one place that draws from the global generator
            torch.manual_seed(stream_seed(seed, "dropout", step))

            # 1. the proxy: one step (or more) up the gain; no gradient reaches the adapter
            for k in range(config.proxy_steps if objective.uses_proxy else 0):
                turn = step * config.proxy_steps + k
                pair = join(
                    take(setup.aux_member, b, turn, seed, "aux_member"),
                    take(setup.aux_nonmember, b, turn, seed, "aux_nonmember"),
                )
                draw = training_draw(pair, model.num_train_timesteps, seed, "proxy", turn)
                with torch.no_grad():
                    error_maps = model.error_maps(pair, draw)
                is_member = torch.arange(2 * b, device=model.device) < b
                seen = ascend(setup.proxy, setup.proxy_optimizer, error_maps, draw.timesteps, is_member)
                log.add(mi_gain=seen.mi_gain, proxy_accuracy=seen.accuracy)

            # 2. the adapter: one step down its objective
            batch = take(setup.train, b, step, seed, "train")
            draw = training_draw(batch, model.num_train_timesteps, seed, "adapter", step)
            error_maps = model.error_maps(batch, draw)
            losses = adaptation_loss(error_maps)
            log_member = (
                log_membership(setup.proxy, error_maps, draw.timesteps)
                if objective.uses_proxy
                else torch.zeros_like(losses)
            )
            loss = objective(losses, log_member).mean()
            setup.accelerator.backward(loss)
            grad_norm = setup.accelerator.clip_grad_norm_(setup.parameters, config.max_grad_norm)
            setup.optimizer.step()
            setup.optimizer.zero_grad(set_to_none=True)
            log.add(loss=loss, adaptation_loss=losses.mean(), grad_norm=grad_norm)
            display.update()

            # 3. the only places where the host waits for the device
            done = step + 1
            saving = done % config.checkpointing_steps == 0 or done == setup.steps
            if saving or done % config.logging_steps == 0:
                row = log.row(done, config.learning_rate, time.perf_counter() - began)
                if row["loss"] is None or row["grad_norm"] is None:
                    raise not_a_number(folder, done)
                folder.log(row)
                setup.accelerator.log({k: v for k, v in row.items() if v is not None}, step=done)
                display.set_postfix(postfix(row), refresh=False)
            if saving:
                folder.save(
                    Checkpoint(done, setup.steps, setup.tensors()),
                    packed_adapter(config, setup),
                    config.checkpoints_total_limit,
                )
    try:
        write_adapter(folder.path / KOHYA_FILE, packed_for_kohya(config, setup))
    except ValueError as error:
        say(f"no {KOHYA_FILE}: {error}")
    folder.finish(setup.steps, write_adapter(folder.path / ADAPTER_FILE, packed_adapter(config, setup)))
    setup.accelerator.end_training()


class MeanLog:
    """Means of scalars since the last line, summed on the device."""

    NAMES = ("loss", "adaptation_loss", "mi_gain", "proxy_accuracy", "grad_norm")

    def __init__(self) -> None:
        self.sums: dict[str, tuple[Tensor, int]] = {}

    def add(self, **values: Tensor) -> None:
        """Remember a value of each name; no transfer to the host."""
        for name, value in values.items():
            total, count = self.sums.get(name, (torch.zeros_like(value), 0))
            self.sums[name] = total + value.detach(), count + 1

    def row(self, step: int, learning_rate: float, elapsed_s: float) -> dict[str, Any]:
        """One line of metrics.jsonl; the sums start anew. What is not a finite number is None."""
        means = {name: (total / count).item() for name, (total, count) in self.sums.items()}
        self.sums = {}
        finite = {
            name: means[name] if name in means and abs(means[name]) < float("inf") else None for name in self.NAMES
        }
        return {"step": step, **finite, "learning_rate": learning_rate, "elapsed_s": round(elapsed_s, 2)}


def packed_adapter(config: TrainConfig, setup: Setup) -> bytes:
    """The adapter file's content."""
    method = setup.adaptation
    state = method.state_dict(setup.model.denoiser)
    return adapter_bytes(
        state, rank=method.rank, alpha=method.alpha, targets=TARGETS[method.targets], objective=config.objective
    )


def packed_for_kohya(config: TrainConfig, setup: Setup) -> bytes:
    """The content of the file for ComfyUI, Forge and A1111."""
    method, model = setup.adaptation, setup.model
    unet_config: Any = model.denoiser.config
    return kohya_bytes(
        method.state_dict(model.denoiser),
        rank=method.rank,
        alpha=method.alpha,
        objective=config.objective,
        family=model.family,
        layers_per_block=unet_config.layers_per_block,
        resolution=config.resolution or model.resolution,
    )


def optimizer_tensors(optimizer: Any) -> dict[str, Tensor]:
    """Adam's moments and counters, flat, for safetensors."""
    state = optimizer.state_dict()["state"]
    return {
        f"{i}.{name}": value.detach().cpu().contiguous() for i, entry in state.items() for name, value in entry.items()
    }


def load_optimizer_tensors(optimizer: Any, tensors: dict[str, Tensor]) -> None:
    """The inverse of ``optimizer_tensors``."""
    content = optimizer.state_dict()
    content["state"] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        content["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(content)


def objective_title(config: TrainConfig) -> str:
    """ "smp_lora, lambda 0.05"."""
    return config.objective if config.objective == "lora" else f"{config.objective}, lambda {config.mi_lambda:g}"


def postfix(row: dict[str, Any]) -> dict[str, str]:
    """What the progress bar shows."""
    shown = {"loss": "adaptation_loss", "MI gain": "mi_gain", "proxy acc": "proxy_accuracy"}
    return {title: f"{row[name]:.3f}" for title, name in shown.items() if row[name] is not None}


def not_a_number(folder: RunFolder, step: int) -> TrainingError:
    """The error of a run that blew up."""
    last = folder.steps()
    kept = f"checkpoint-{last[-1]} is the last good one" if last else "no checkpoint was written"
    return TrainingError(
        f"the loss is not a number by step {step}; {kept}. Lower --learning_rate or --mi_lambda in a new --output_dir"
    )


def _require_tensorboard() -> None:
    if find_spec("tensorboard") is None:
        raise ConfigError("--report_to got 'tensorboard', which is not installed: pip install smplora[tensorboard]")
