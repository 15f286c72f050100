"""What is audited and evaluated: a run's adapter or one of its checkpoints, found, checked and loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from smplora.adapters.base import PublishedAdaptation
from smplora.adapters.files.read import named_as, read_tensors
from smplora.config.catalogue.adaptations import ADAPTATIONS
from smplora.config.catalogue.adaptations import TITLES as METHODS
from smplora.config.catalogue.objectives import TITLES
from smplora.config.train import TrainConfig
from smplora.core.cache import Cache
from smplora.core.console import say_once
from smplora.core.device import choose_device
from smplora.core.errors import CheckpointError, DataError, SplitError, UserError
from smplora.core.files import check_writable, files_sha256
from smplora.core.ownership import refuse_to_replace
from smplora.core.registry import build
from smplora.core.surroundings import real
from smplora.data.cells import Cell
from smplora.data.encode import encode
from smplora.data.pictures import frame
from smplora.data.pool import Sample, open_source, read_samples
from smplora.data.prepare import Preparation, preparation
from smplora.data.source import ImageSource
from smplora.data.split import MANIFEST, Split, read_split
from smplora.models.adapted import Adapted
from smplora.models.diffusion import LatentDiffusion
from smplora.models.proxy import ProxyAttackModel
from smplora.models.text import configured
from smplora.results.audit import Adapter, TrainedWith
from smplora.results.record import read
from smplora.results.run import CheckpointState
from smplora.runs.base_model import check_precision, load_base
from smplora.runs.checkpoints import STATE, damage
from smplora.runs.folder import CONFIG, DONE, RunFolder, read_config

# what an audit takes for granted of the training of an adapter made elsewhere
FROM_METADATA = ("resolution", "clip_skip", "max_token_length", "enable_bucket", "bucket_no_upscale")


@dataclass(frozen=True)
class Subject:
    """What is audited: a run's adapter, or that of one of its checkpoints."""

    folder: Path
    run: Path
    config: TrainConfig
    step: int
    max_train_steps: int

    @property
    def label(self) -> str:
        """For people: "LoRA", "LoRA, stopped at step 500"."""
        title = self.title[:1].upper() + self.title[1:]
        return title if self.folder == self.run else f"{title}, stopped at step {self.step}"

    @property
    def title(self) -> str:
        """Objective and method, in the paper's words: "MP-LoRA", "full fine-tuning", "SMP full fine-tuning"."""
        objective = TITLES.get(self.config.objective, self.config.objective)
        method = METHODS.get(self.config.adaptation, self.config.adaptation)
        if method == "LoRA":
            return objective
        prefix = objective.removesuffix("LoRA")
        return f"{prefix.removesuffix('-') + ' ' if prefix and method[0].islower() else prefix}{method}"

    @property
    def adaptation(self) -> PublishedAdaptation:
        """What was trained."""
        adaptation: PublishedAdaptation = build(ADAPTATIONS, self.config.adaptation, "adaptation", self.config)
        return adaptation

    @cached_property
    def adapter_sha256(self) -> str:
        """Of the files that hold what was trained.

        Raises:
            OSError: they are gone.
        """
        return files_sha256(self.adaptation.weights(self.folder))

    def check_files(self) -> None:
        """See whether the adapter is the one that training left.

        Raises:
            CheckpointError: it is not.
        """
        done = RunFolder(self.run).done if self.folder == self.run else None
        problem = damage(self.folder) if self.folder != self.run else None
        if done and done.adapter_sha256 != self.adapter_sha256:
            problem = f"its adapter is not the one whose SHA-256 {DONE} holds"
        if problem:
            have = ", ".join(f"checkpoint-{step}" for step in RunFolder(self.run).steps()) or "none"
            raise CheckpointError(
                f"'{self.folder}' is damaged ({problem}); restore it, audit another checkpoint ({have}), or train "
                "again with --resume_from_checkpoint"
            )

    def summary(self, adapter_sha256: str, model: LatentDiffusion) -> Adapter:
        """What results say of it."""
        return Adapter(
            label=self.label,
            objective=self.config.objective,
            adaptation=self.config.adaptation,
            step=self.step,
            max_train_steps=self.max_train_steps,
            adapter_sha256=adapter_sha256,
            model=model.name,
            model_digest=model.digest,
        )


def find_subject(adapter: str) -> Subject:
    """The subject of ``--adapter``: a run folder, a checkpoint folder, or the adapter file in one of them.

    Raises:
        CheckpointError: neither, or the run is not finished.
    """
    folder = real(adapter)
    folder = folder.parent if folder.is_file() else folder
    run = folder.parent.parent if folder.name.startswith("checkpoint-") else folder
    if not (run / CONFIG).exists():
        raise CheckpointError(
            f"--adapter got '{adapter}', which is not a run folder: it has no {CONFIG}; 'smplora train' makes runs, "
            "and adapters made elsewhere are audited as .safetensors files"
        )
    config = read_config(run, TrainConfig)
    if folder == run:
        done = RunFolder(run).done
        if done is None:
            raise CheckpointError(
                f"'{run}' is not finished; 'smplora train --config {run / CONFIG}' resumes it, or audit a checkpoint"
            )
        chosen = config.measured_budget or config.stop_when  # what is published may be of an earlier step
        end = config.max_train_steps if chosen else None
        return Subject(folder, run, config, done.step, end or done.step)
    if not (folder / STATE).exists():
        have = ", ".join(f"checkpoint-{s}" for s in RunFolder(run).steps()) or "none"
        raise CheckpointError(f"--adapter got '{folder}', which does not exist; checkpoints of this run: {have}")
    state = read(folder / STATE, CheckpointState, "choose another checkpoint and run it")
    return Subject(folder, run, config, state.step, state.max_train_steps)


CHOSE = "{} reference images are left out: they chose what is published (--drop_nearest balanced, --stop_when)"
ROUNDED = "trained on a base model rounded to {} (--quantize), and attacked on the model as it is in its files"
LEFT_OUT = "{} aux members and {} aux non-members are left out: the training chose by them (--privacy_budget)"
RESULT_FILES = {  # what the commands write into a folder that is named
    "audit": (
        "audit.json", "scores.npz", "report.html", "certificate.html", "exposed.json", "exposed.png", "memorised.json",
        "memorised.png",
        MANIFEST,
    ),
    "quality": ("quality.json", "samples.png", "real.png"),
    "properties": ("properties.json",),
}  # fmt: skip
PROOFS = {"audit": ("audit.json", "scores.npz"), "quality": ("quality.json",), "properties": ("properties.json",)}


@dataclass(frozen=True)
class Foreign:
    """An adapter that another program made."""

    path: Path
    config: TrainConfig  # what is known of its training
    adaptation: str

    @property
    def label(self) -> str:
        """For people: the file's name."""
        return self.path.name

    def summary(self, adapter_sha256: str, model: LatentDiffusion) -> Adapter:
        """What results say of it."""
        return Adapter(
            label=self.label,
            objective="unknown",
            adaptation=self.adaptation,
            adapter_sha256=adapter_sha256,
            model=model.name,
            model_digest=model.digest,
            trained_with=TrainedWith(**{name: getattr(self.config, name) for name in FROM_METADATA}),
        )


@dataclass(frozen=True)
class Loaded:
    """A subject with everything loaded: adapted model, split, where the images are."""

    subject: Subject | Foreign
    adapted: Adapted
    split: Split
    source: ImageSource
    resolution: int
    adapter_sha256: str
    cache: Cache | None = None

    @property
    def model(self) -> LatentDiffusion:
        """The model that carries the adapter."""
        return self.adapted.model

    def encode(self, cell: str, largest: int | None = None) -> Cell:
        """Latents and embeddings of the cell, or of its first ``largest`` images (their order is random)."""
        return encode(self.model, self.source, self.split.cells[cell][:largest], self.prepared, self.cache)

    @property
    def prepared(self) -> Preparation:
        """How images are looked at: in the shapes of training, centred, not mirrored, captions as written."""
        return preparation(self.subject.config, self.resolution).plain()

    @property
    def latent_size(self) -> tuple[int, int] | None:
        """What maps are averaged down to where the images have several shapes; None where all have one."""
        size = self.resolution // self.model.downsampling
        return (size, size) if self.subject.config.enable_bucket else None

    def pixels(self, samples: Sequence[Sample]) -> Tensor:
        """The images as ``encode`` sees them: [n, 3, H, W] in [-1, 1]; all of one shape."""
        return torch.stack([frame(self.source.read(s.file), self.prepared.framings(s)[0]) for s in samples])


def load_subject(
    adapter: str,
    moved: Mapping[str, str | None] | None,
    device: str,
    split_manifest: str | None = None,
    cache: Cache | None = None,
    dtype: torch.dtype = torch.float32,
) -> Loaded:
    """Load what ``--adapter`` names, with the split of its run or of ``split_manifest``.

    Args:
        moved: ``train_data_dir``, ``dataset_name`` and ``canaries_dir`` where they are not those of the run any more.
        dtype: of the base model, see ``load_model``.

    Raises:
        UserError: missing or damaged files, moved or changed images.
    """
    subject, moved = find_subject(adapter), moved or {}
    if subject.config.final:
        raise SplitError(
            f"'{subject.run}' is a final: it was trained on the images that an audit compares with; audit or evaluate "
            f"its rehearsal, '{subject.config.final}'"
        )
    chosen = choose_device(device)
    config = subject.config
    check_precision(config, chosen, dtype, exact=subject.adaptation.freezes_base)
    if moved.get("canaries_dir") and not config.canaries_dir:
        raise SplitError(f"--canaries_dir: '{subject.run}' was trained without one; leave it out")
    if moved.get("train_data_dir") or moved.get("dataset_name"):
        config = replace(config, train_data_dir=moved.get("train_data_dir"), dataset_name=moved.get("dataset_name"))
    if moved.get("canaries_dir"):
        config = replace(config, canaries_dir=moved["canaries_dir"])
    try:
        source = open_source(config)
    except UserError as error:
        if any(moved.values()):
            raise
        canaries = ", or --canaries_dir" * bool(config.canaries_dir)
        raise DataError(
            f"{subject.run / CONFIG} says where the images of the run were, and they are not there ({error}); give "
            f"--train_data_dir or --dataset_name{canaries}: where they are now"
        ) from error
    samples = read_samples(source)
    split = trained = read_split(subject.run / MANIFEST, samples)
    if split_manifest:
        split = _with_same_members(trained, read_split(Path(split_manifest), samples), split_manifest)
    adapted = load_adapted(subject, chosen, dtype)
    if config.measured_budget:
        split = split.without_aside(trained)
        say_once(LEFT_OUT.format(len(split.aside), len(split.aside_nonmembers)))
    if config.chooses_by_reference:
        split = split.without_choosers(trained)
        say_once(CHOSE.format(len(split.choosers)))
    split = split.worded(config.wording)
    resolution = config.resolution or adapted.model.resolution
    return Loaded(subject, adapted, split, source, resolution, subject.adapter_sha256, cache)


def load_adapted(
    subject: Subject, device: torch.device, dtype: torch.dtype = torch.float32, quantize: str | None = None
) -> Adapted:
    """The subject's base model, kept as ``load_model`` does with ``dtype`` and ``quantize``, with its adapter.

    Raises:
        CheckpointError: missing or damaged files, another base model.
    """
    config, adaptation = subject.config, subject.adaptation
    state = adaptation.read(subject.folder)
    subject.check_files()
    model = load_base(config, device, dtype, quantize)
    RunFolder(subject.run).check_model(model)
    adaptation.attach(model)
    model.text = configured(model.text, config.clip_skip, config.max_token_length)
    try:
        adaptation.load_state_dict(model, named_as(state, adaptation.state_dict(model)))
    except (KeyError, RuntimeError) as error:
        file, base = adaptation.weights(subject.folder)[0], config.pretrained_model_name_or_path
        raise CheckpointError(f"--adapter: {file} does not fit {base}: {error}") from error
    return Adapted(model, adaptation, _proxy(subject, model))


def _proxy(subject: Subject, model: LatentDiffusion) -> nn.Module | None:
    """What the adapter was trained against, of the same step; None where there was nothing, it is gone, or
    it saw the test members too, so that nothing would be left to try it on."""
    file = subject.run / "checkpoints" / f"checkpoint-{subject.step}" / "proxy.safetensors"
    config = subject.config
    if not file.exists() or config.proxy_saw_all:
        return None
    state, edge = read_tensors(file), (config.resolution or model.resolution) // model.downsampling
    proxy = ProxyAttackModel(
        model.latent_channels * edge**2,
        inputs=config.proxy_input,
        sees_timestep=config.proxy_sees_timestep,
        num_train_timesteps=model.num_train_timesteps,
        size=(edge, edge),
    )
    try:
        proxy.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{file} is damaged ({error}); train anew, or delete it to audit without it") from error
    return proxy.to(model.device).eval()


def _digests(split: Split | None) -> dict[str, set[str]]:
    return {cell: {s.digest for s in samples} for cell, samples in split.cells.items()} if split else {}


def _with_same_members(trained: Split, named: Split, name: str) -> Split:
    for cell in ("aux_member", "test_member"):
        if _digests(trained)[cell] != _digests(named)[cell]:
            raise SplitError(
                f"--split_manifest '{name}' has another {cell} cell than the split that the adapter was trained on"
            )
    if named.canaries is None:
        named = replace(named, canaries=trained.canaries)
    if _digests(named.canaries) != _digests(trained.canaries):
        raise SplitError(f"--split_manifest '{name}' has other canaries, or other coins, than those of the training")
    inside = {s.digest for s in trained.train}
    unseen = [s for cell in ("aux_nonmember", "test_nonmember", "reference") for s in named.cells[cell]]
    wrong = [s.file for s in unseen if s.digest in inside]
    if wrong:
        raise SplitError(
            f"--split_manifest '{name}' says that {len(wrong)} images were not trained on which were, {wrong[0]} among "
            "them: canaries of the run, which its coin put in"
        )
    nonmembers = {s.digest for s in trained.cells["aux_nonmember"]}
    if any(s.digest in nonmembers for s in named.cells["test_nonmember"]):
        raise SplitError(
            f"--split_manifest '{name}' tests on aux non-members of the run, which its proxy has trained on"
        )
    return named


def result_folder(adapter: str | None, output_dir: str | None, name: str) -> Path:
    """Where an audit or evaluation is written: ``--output_dir``, or a folder beside the adapter.

    Raises:
        UserError: no such adapter, the folder could not be written, or files of its names in it are somebody else's.
    """
    folder = Path(output_dir) if output_dir else find_subject(adapter or "").folder / name
    if output_dir:
        refuse_to_replace(folder, RESULT_FILES[name], "output_dir", PROOFS[name])
    check_writable(folder)
    return folder
