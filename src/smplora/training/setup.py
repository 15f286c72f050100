"""What the training loop works on: made from a configuration, saved in checkpoints, restored from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from smplora.adapters.base import PublishedAdaptation
from smplora.adapters.files.write import AdapterFacts, public_name
from smplora.config.catalogue.adaptations import ADAPTATIONS
from smplora.config.catalogue.objectives import WITH_PROXY
from smplora.config.distill import DISTILLED
from smplora.config.synthetic import SYNTHETIC
from smplora.config.train import TrainConfig
from smplora.core.cache import open_cache
from smplora.core.errors import CheckpointError
from smplora.core.random_streams import stream_seed
from smplora.core.registry import build
from smplora.data.cells import Cell
from smplora.data.encode import encode
from smplora.data.pool import open_source
from smplora.data.prepare import preparation
from smplora.data.split import Split
from smplora.models.adapted import Adapted
from smplora.models.diffusion import LatentDiffusion
from smplora.models.flow import FlowMatching, Weighting
from smplora.models.load import usual_guidance
from smplora.models.text import configured
from smplora.objectives.game import SMPLoRAGame
from smplora.results.record import read, write
from smplora.results.run import Privacy
from smplora.runs.base_model import DTYPES
from smplora.runs.checkpoints import Checkpoint
from smplora.runs.folder import PRIVACY, RunFolder
from smplora.training.batches import Feed
from smplora.training.differential_privacy import PrivateGradients, guarantee, noise_seed
from smplora.training.distillation import Teachers
from smplora.training.distributed import shard
from smplora.training.ema import averaged, ema_tensors, load_ema_tensors
from smplora.training.optimizers import learning_rate_factor, load_optimizer_tensors, make_optimizer, optimizer_tensors
from smplora.training.precision import LossScaler, compile_denoiser
from smplora.training.prior_preservation import prior_cell
from smplora.training.synthesis import synthetic_cell
from smplora.training.teachers import TEACHERS
from smplora.training.weight_noise import WeightNoise, noisy


class Keeper(Protocol):
    """Who looks at the adapter now and then, keeps the best, and may end the training. Its state is in checkpoints,
    under ``state_name``."""

    state_name: str

    @property
    def title(self) -> str:
        """Whose choice it is, for people."""
        ...

    @property
    def over(self) -> bool:
        """Whether the training should end."""
        ...

    def after_step(self, done: int) -> dict[str, str]:
        """Look, where it is time to; returns what the progress bar shows."""
        ...

    def finish(self) -> int:
        """Put the best adapter in place; returns its step."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Its state."""
        ...

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Put it back."""
        ...


@dataclass
class Setup:
    """Everything that the loop works on."""

    accelerator: Accelerator
    model: LatentDiffusion
    adaptation: PublishedAdaptation
    parameters: list[nn.Parameter]
    optimizer: Any
    scaler: LossScaler
    ema: EMAModel | None
    learning_rate_factor: Callable[[int], float]  # of the step, so that it needs no state
    game: SMPLoRAGame
    feed: Feed
    steps: int
    mixed_precision: str
    private: PrivateGradients | None = None  # makes the gradients in place of a backward pass
    teachers: Teachers | None = None  # whose predictions are learned in place of the images
    weight_noise: WeightNoise | None = None  # of what is handed out
    aside: tuple[Cell, Cell] | None = None  # members and non-members, for a budget
    keeper: Keeper | None = None  # of what is best

    @property
    def adapted(self) -> Adapted:
        """The model with its adapter."""
        return Adapted(self.model, self.adaptation)

    def autocast(self) -> torch.autocast:
        """The precision of the base model's forward passes."""
        kind = DTYPES[self.mixed_precision]
        return torch.autocast(self.model.device.type, kind, enabled=kind is not torch.float32)

    @contextmanager
    def as_published(self) -> Iterator[None]:
        """Inside, the adapter is what is handed out: its moving average, if there is one, and with noise, if any."""
        with averaged(self.ema, self.parameters), noisy(self.weight_noise, self.parameters):
            yield

    def checkpoint(self, step: int) -> Checkpoint:
        """The state after ``step`` steps."""
        return Checkpoint(step, self.steps, self.accelerator.num_processes, self.tensors())

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All state, for a checkpoint."""
        state = {
            "adapter_state": self.adaptation.state_dict(self.model),
            "optimizer": optimizer_tensors(self.optimizer),
        }
        if self.ema:
            state["ema"] = ema_tensors(self.ema)
        if self.scaler.is_enabled():
            state["scaler"] = self.scaler.tensors()
        if self.keeper:
            state[self.keeper.state_name] = self.keeper.tensors()
        if self.game.uses_proxy:
            proxy = {name: t.detach().cpu().contiguous() for name, t in self.game.proxy.state_dict().items()}
            state |= {"proxy": proxy, "proxy_optimizer": optimizer_tensors(self.game.optimizer)}
        return state

    def restore(self, tensors: dict[str, dict[str, Tensor]]) -> None:
        """Put a checkpoint's state back."""
        missing = self.tensors().keys() - tensors.keys()
        if missing:
            raise KeyError(f"it lacks {', '.join(sorted(missing))}")
        self.adaptation.load_state_dict(self.model, tensors["adapter_state"])
        load_optimizer_tensors(self.optimizer, tensors["optimizer"])
        if self.ema:
            load_ema_tensors(self.ema, tensors["ema"])
        if self.scaler.is_enabled():
            self.scaler.load_tensors(tensors["scaler"])
        if self.keeper:
            self.keeper.load_tensors(tensors[self.keeper.state_name])
        if self.game.uses_proxy:
            self.game.proxy.load_state_dict(tensors["proxy"])
            load_optimizer_tensors(self.game.optimizer, tensors["proxy_optimizer"])


def restore(setup: Setup, checkpoint: Checkpoint, folder: RunFolder) -> None:
    """Put a checkpoint's state back.

    Raises:
        CheckpointError: something is missing from it, or does not fit.
    """
    try:
        setup.restore(checkpoint.tensors)
    except (LookupError, RuntimeError, ValueError) as error:
        name = folder.checkpoints / f"checkpoint-{checkpoint.step}"
        reason = error.args[0] if error.args else error
        raise CheckpointError(f"{name} is damaged ({reason}); delete it to resume from the one before") from error


def prepare(
    config: TrainConfig, model: LatentDiffusion, split: Split, accelerator: Accelerator, progress: bool = False
) -> Setup:
    """Attach the adapter, compute latents and embeddings, make the proxy; draw images of the class if need be.

    Raises:
        ConfigError: text settings that the model does not have.
    """
    model.text = configured(model.text, config.clip_skip, config.max_token_length)
    if isinstance(model, FlowMatching):
        scheme = config.weighting_scheme or model.usual_weighting
        model.weighting = Weighting(scheme, config.logit_mean, config.logit_std, config.mode_scale)
    torch.backends.cuda.matmul.allow_tf32 = config.allow_tf32
    adaptation: PublishedAdaptation = build(ADAPTATIONS, config.adaptation, "adaptation", config)
    if config.mixed_precision != "no" and adaptation.freezes_base:
        kind = DTYPES[config.mixed_precision]  # frozen weights only: the adapter, attached below, is fp32
        nn.Module.to(model.denoiser, kind)  # diffusers' own warns of modules to keep in fp32, of which there are none
        for encoder in model.text.encoders.values() if config.train_text_encoder else ():
            encoder.to(kind)
        # the VAE stays fp32: it encodes each image once, and SDXL's overflows in fp16
    torch.manual_seed(stream_seed(config.seed, "initialisation"))
    trained = adaptation.attach(model)
    if config.gradient_checkpointing:
        Adapted(model, adaptation).checkpoint_activations(True)
    parameters = [p for of_component in trained.values() for p in of_component]
    if config.shard_base_model:
        shard(accelerator, model.denoiser, parameters)
    if config.compile:
        compile_denoiser(model.denoiser, model.device)
    rates = {name: config.rate_of(name) for name in trained}
    prepared = preparation(config, config.resolution or model.resolution)
    source, cache = open_source(config), open_cache(config.cache_dir, config.cache_latents_to_disk)
    with accelerator.main_process_first():
        nonmembers = split.cells["aux_nonmember"] + split.aside_nonmembers
        encoded = encode(model, source, split.train + nonmembers, prepared, cache)
        weight_noise = None
        if config.weight_noise:
            weight_noise = WeightNoise(config.weight_noise, noise_seed(Path(config.output_dir)))
        drawn = synthetic_cell(config, model, prepared, cache) if config.objective == SYNTHETIC else None
        prior = None
        if config.preserves_prior:
            run, adapted = Path(config.output_dir), Adapted(model, adaptation)
            guidance = usual_guidance(config.pretrained_model_name_or_path, config.revision)
            prior = prior_cell(config, run, config.seed, guidance, adapted, prepared, cache, progress)
    members, aux_members, inside = len(split.train), len(split.cells["aux_member"]), len(split.members)
    end = members + len(split.cells["aux_nonmember"])
    channels, *shape = encoded.groups[0].mean.shape[1:]
    size = tuple(shape) if len(encoded.groups) == 1 else (prepared.resolution // model.downsampling,) * 2
    steps = config.max_train_steps or 0
    private = None
    if config.objective == "dp_lora":
        secret = noise_seed(Path(config.output_dir))
        layers = adaptation.layers(model).adapter
        batch_size = config.train_batch_size * config.gradient_accumulation_steps
        promise = guarantee(config, batch_size, members, steps)
        private = PrivateGradients(
            config, config.noise_multiplicity, config.seed, model, encoded[:members], layers, promise, secret
        )
    return Setup(
        accelerator=accelerator,
        model=model,
        adaptation=adaptation,
        parameters=parameters,
        optimizer=make_optimizer(config, [(trained[name], rate) for name, rate in rates.items()]),
        scaler=LossScaler(model.device, enabled=config.mixed_precision == "fp16"),
        ema=EMAModel(parameters, decay=config.ema_decay, foreach=True) if config.use_ema else None,
        learning_rate_factor=learning_rate_factor(config, steps),
        game=make_game(config, (channels, *size), model),
        feed=Feed(
            train=drawn if drawn is not None else encoded[:members].repeated([s.repeats for s in split.train]),
            aux_member=encoded[:aux_members],
            proxy_member=encoded[:members] if config.proxy_members == "train" else None,
            aux_nonmember=encoded[members:end],
            prior=prior,
            batch_size=config.train_batch_size,
            proxy_batch_size=config.proxy_batch_size,
            accumulated=config.gradient_accumulation_steps,
            seed=config.seed,
            num_train_timesteps=model.num_train_timesteps,
            process=accelerator.process_index,
            processes=accelerator.num_processes,
            noise_offset=config.noise_offset,
            timesteps_of=model.timesteps_of,
        ),
        steps=steps,
        mixed_precision=config.mixed_precision,
        private=private,
        teachers=Teachers.read(config, split, model, adaptation, parameters) if config.objective == DISTILLED else None,
        weight_noise=weight_noise,
        aside=(encoded[inside : inside + len(split.aside)], encoded[end:]) if split.aside else None,
    )


def make_game(config: TrainConfig, latent_shape: Sequence[int], model: LatentDiffusion) -> SMPLoRAGame:
    """The game of a run; an objective without a proxy has none to play, wherever its gradients come from."""
    return SMPLoRAGame(
        latent_shape,
        objective=config.objective if config.objective in WITH_PROXY else "lora",
        mi_lambda=config.mi_lambda,
        smp_delta=config.smp_delta,
        smp_ratio=config.smp_ratio,
        proxy_learning_rate=config.proxy_learning_rate,
        proxy_input=config.proxy_input,
        proxy_sees_timestep=config.proxy_sees_timestep,
        num_train_timesteps=model.num_train_timesteps,
        device=model.device,
    )


def publish(config: TrainConfig, setup: Setup, folder: Path, *, step: int, complete: bool) -> list[str]:
    """Write what is handed out after ``step`` steps into ``folder``; see ``PublishedAdaptation.publish``."""
    if setup.private:
        promise = setup.private.promise.describe(config.max_grad_norm, config.noise_multiplicity, step)
        write(folder / PRIVACY, promise)
    elif config.objective_on_images == "dp_lora":  # whatever is done with what it drew is post-processing
        teacher = Path(config.output_dir) / TEACHERS / "teacher-0" / PRIVACY
        write(folder / PRIVACY, read(teacher, Privacy, "train anew"))
    model = setup.model
    facts = AdapterFacts(
        config.objective,
        model.family,
        config.resolution or model.resolution,
        public_name(config.pretrained_model_name_or_path),
        model.layers_per_block,
    )
    with setup.as_published():
        return setup.adaptation.publish(model, folder, facts, precision=config.save_precision, complete=complete)
