"""Gates, then attacks x cells -> signals -> scores on disk, numbers with intervals, a verdict.

Validity gates come first; an audit that fails one is finished nevertheless: what the attacks found helps to see why.
Whatever is fitted (scalers, signs, classifiers, thresholds) is fitted on one half, aux or test, and read once on the
other. The gates, and all fitting that the test cells are read with, come before the adapter is attacked on them.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from smplora.attacks.base import Access, Attack, AttackInfo
from smplora.attacks.load import load_attacks
from smplora.attacks.methods.loss import timestep_grid
from smplora.attacks.views import out_of_reach
from smplora.audit.canaries import ask_canaries, canary_sentence
from smplora.audit.conclusion import (
    ScoredAttack,
    conclude,
    labels,
    learn_attacks,
    score_arrays,
    score_attacks,
    strongest_first,
)
from smplora.audit.cost import CostPlan, estimate_cost
from smplora.audit.gates import (
    base_attacks,
    base_check,
    blind_checks,
    blind_features,
    failures,
    gates,
    shuffled_check,
    small_cells,
)
from smplora.audit.memorisation.search import cost_sentence, encoder_for, encoder_weights, forget, memorise, same_search
from smplora.audit.most_exposed import write_exposed
from smplora.audit.positive_control import FOLDER as CONTROL_RUNS
from smplora.audit.positive_control import control_check, control_sentence
from smplora.audit.shadow_adapters import with_shadows
from smplora.audit.shadow_plan import SHADOWS, ShadowPlan, plan_shadows
from smplora.audit.signals import ATTACKED, AUX, TEST, Collector, OnBatch
from smplora.config.audit import AuditConfig
from smplora.config.catalogue.attacks import ATTACKS, COUNTS, LOW_PASS, SHADOW, SHADOW_OF, TIERS, WITH_ENCODER
from smplora.config.subject import is_foreign
from smplora.core.arrays import Floats
from smplora.core.cache import open_cache
from smplora.core.console import bar, say
from smplora.core.environment import environment
from smplora.core.errors import ConfigError
from smplora.core.files import files_sha256, write_atomically
from smplora.core.output import output_folder
from smplora.core.parallel import Work
from smplora.core.registry import load
from smplora.data.split import POOLS, write_split
from smplora.models.encoders.transformers import BUNDLED
from smplora.results.audit import FORMAT, Audit, Gate, SplitSummary
from smplora.results.memorisation import Memorisation
from smplora.results.record import write
from smplora.runs.generate import check_inference_steps
from smplora.runs.other_trainers import load_any
from smplora.runs.subject import LEFT_OUT, RESULT_FILES, ROUNDED, Loaded, find_subject, result_folder

NOT_TOLD = "an adapter made elsewhere needs --shadow_config, options of 'smplora train' that come closest to its own"


@dataclass
class PreparedAudit:
    """What an audit works on. Everything that the user can mend is said while it is made."""

    folder: Path  # where results go
    loaded: Loaded
    attacks: dict[str, Attack]
    base_attacks: dict[str, Attack]  # on the base model, the adapter switched off
    collector: Collector
    shadows: ShadowPlan | None


@dataclass(frozen=True)
class Evidence:
    """What attacks saw and learned, in the protocol's order."""

    gates: list[Gate]
    notes: list[str]
    scored: list[ScoredAttack]


def prepare(config: AuditConfig, progress: bool) -> PreparedAudit:
    """Load the adapter and its images, choose the attacks, plan the shadows.

    Raises:
        UserError: anything that the user can mend.
    """
    folder = result_folder(config.adapter, config.output_dir, "audit")
    loaded = load_any(config, open_cache(config.cache_dir, config.cache_latents_to_disk))
    attacks, base = chosen_attacks(loaded, config, progress)
    if config.looks_for_copies:
        check_inference_steps(config.memorisation_steps, "memorisation_steps", loaded.model)
        encoder_for(config.attack_encoder, loaded.resolution, config.device)  # is it there?
    shadows = plan_shadows(config, loaded, folder) if config.shadows else None
    if config.strong_by_tier and not config.shadows and progress:
        why = NOT_TOLD if is_foreign(config) else "--shadows 0"
        say(f"left out: shadow attacks ({', '.join(SHADOW_OF[config.tier])}); {why}")
    return PreparedAudit(folder, loaded, attacks, base, Collector(loaded, config.seed, config.batch_size), shadows)


def plan(config: AuditConfig) -> CostPlan:
    """``--plan``: what an audit would do, and how long it would take.

    Raises:
        UserError: as ``prepare``.
    """
    config = config.with_counts()
    return cost_of(prepare(config, True), config)


def cost_of(ready: PreparedAudit, config: AuditConfig) -> CostPlan:
    """The passes that are ahead, and what else."""
    more, canaries = [ready.shadows.cost()] if ready.shadows else [], ready.loaded.split.canaries
    more += [cost_sentence(ready.loaded, config)] if config.looks_for_copies else []
    more += [control_sentence(config.positive_control_steps)] if config.positive_control else []
    cost = estimate_cost(ready.collector, ready.base_attacks, ready.attacks, more)
    if canaries:
        cost = replace(cost, more=(*cost.more, canary_sentence(canaries, ready.attacks, cost)))
    return cost


def audit(config: AuditConfig, training: Work, *, progress: bool = True) -> Audit:
    """Write audit.json and scores.npz; returns the content of the first, also where a gate makes it invalid.

    Args:
        training: trains what is needed beside the adapter: shadow adapters, the positive control.

    Raises:
        UserError: anything that the user can mend.
    """
    began, config = time.perf_counter(), config.with_counts()
    ready = prepare(config, progress)
    cost = cost_of(ready, config) if progress else None
    for sentence in (*cost.more, f"audit of {ready.loaded.subject.label}: {cost.sentence}") if cost else ():
        say(sentence)
    with output_folder(ready.folder, (*RESULT_FILES["audit"], SHADOWS, CONTROL_RUNS)):
        return measure_and_write(ready, config, training, cost, progress, began)


def measure_and_write(
    ready: PreparedAudit, config: AuditConfig, training: Work, cost: CostPlan | None, progress: bool, began: float
) -> Audit:
    """What was prepared is measured, judged and written; as ``audit``."""
    measured = measure(ready, config, training, cost, progress)
    loaded, split = ready.loaded, ready.loaded.split
    ask = partial(signals_of, config.seed, config.batch_size, progress)
    canaries = ask_canaries(loaded, ready.attacks, ask, delta=config.target_delta, seed=config.seed)
    memorisation = search(ready, config, progress) if config.looks_for_copies else None
    conclusion = conclude(
        measured.scored,
        *(labels(split.sizes, kind) for kind in ("aux", "test")),
        seed=config.seed,
        core=TIERS["quick"],
        coin=split.protocol == "coin",
        delta=config.target_delta,
        failed_gates=failures(measured.gates),
        memorisation=memorisation,
        canaries=canaries is not None,
    )
    result = Audit(
        format=FORMAT,
        subject=loaded.subject.summary(loaded.adapter_sha256, loaded.model),
        split=SplitSummary(split.protocol, split.seal, split.sizes),
        settings={
            **audit_settings(config),
            "attacks": list(ready.attacks),
            "timesteps": timestep_grid(config.num_timesteps, loaded.model.num_train_timesteps),
            "latents": "posterior mode",
            "guidance": "off",
        },
        shadows=ready.shadows.summary(config.shadow_signal) if ready.shadows else None,
        gates=gates(measured.gates, measured.notes),
        **vars(conclusion),
        memorisation=memorisation,
        canaries=canaries,
        environment=environment(),
        elapsed_s=round(time.perf_counter() - began, 1),
    )
    write_results(result, measured.scored, ready)
    return result


def search(ready: PreparedAudit, config: AuditConfig, progress: bool) -> Memorisation:
    """Look for copies of training images."""
    return memorise(
        ready.loaded,
        config,
        ready.folder,
        attack_encoder=config.attack_encoder,
        device=config.device,
        seed=config.seed,
        batch_size=config.batch_size,
        show=progress,
    )


def measure(
    ready: PreparedAudit, config: AuditConfig, training: Work, cost: CostPlan | None, progress: bool
) -> Evidence:
    """The protocol: gates, shadows, attacks learn on aux, only then the adapter is attacked on the test cells.

    ``ready`` gets the attacks with their shadows, and what was loaded anew.
    """
    sizes = ready.loaded.split.sizes
    aux_member, test_member = (labels(sizes, kind) for kind in ("aux", "test"))

    # 1. what sees no adapter must not tell members from non-members
    features = blind_features(ready.loaded, config.attack_encoder, config.device)
    checks, odd = blind_checks(features, config.seed)
    with progress_of(cost, progress) as (display, on_batch):
        signals = ready.collector.signals(ready.base_attacks, ATTACKED, base=True, on_batch=on_batch)
        checks.append(base_check(ready.base_attacks, signals, features.is_member, config.seed))

        # 2. shadow adapters are trained as this one was, and asked
        if ready.shadows:
            add_shadows(ready, ready.shadows, config, training, progress)
            display.unpause()

        # 3. attacks learn on aux; where labels are shuffled they must learn nothing
        signals = ready.collector.signals(ready.attacks, AUX, on_batch=on_batch)
        learned = learn_attacks(ready.attacks, signals, "aux", aux_member, config.seed)
        order = strongest_first(ready.attacks, learned, aux_member)
        checks.append(shuffled_check(ready.attacks, order, signals, aux_member, config.seed))

        # 4. an adapter that has learned by heart must be found out
        if config.positive_control:
            control = control_check(ready.loaded, ready.attacks, config, ready.folder, training, progress=progress)
            checks.append(control)
            display.unpause()

        # 5. only now the adapter is attacked on the test cells; what is fitted there reads aux
        signals |= ready.collector.signals(ready.attacks, TEST, on_batch=on_batch)
    aside = len(ready.loaded.split.aside), len(ready.loaded.split.aside_nonmembers)
    left_out = [LEFT_OUT.format(*aside)] if any(aside) else []
    bits = getattr(ready.loaded.subject.config, "quantize", None)
    left_out += [ROUNDED.format(bits)] if bits else []
    remarks = [*(ready.shadows.notes() if ready.shadows else []), *left_out, *odd, *small_cells(sizes)]
    scored = score_attacks(ready.attacks, learned, signals, aux_member, test_member, config.seed)
    return Evidence(checks, remarks, scored)


def add_shadows(ready: PreparedAudit, shadows: ShadowPlan, config: AuditConfig, training: Work, progress: bool) -> None:
    """Train and ask the shadows; the adapter is unloaded meanwhile, since its memory is needed to train."""
    split, dtype = ready.loaded.split, ready.loaded.model.dtype
    del ready.loaded, ready.collector
    signals = partial(signals_of, config.seed, config.batch_size, progress)
    ready.attacks = with_shadows(ready.attacks, shadows, split, training, signals, config.workers, dtype)
    ready.loaded = load_any(config, open_cache(config.cache_dir, config.cache_latents_to_disk))
    ready.collector = Collector(ready.loaded, config.seed, config.batch_size)


def write_results(result: Audit, scored: Sequence[ScoredAttack], ready: PreparedAudit) -> None:
    """Everything that an audit leaves, audit.json last."""
    folder, loaded = ready.folder, ready.loaded
    if result.memorisation is None:
        forget(folder)
    buffer = io.BytesIO()
    arrays = score_arrays(scored, *(labels(loaded.split.sizes, kind) for kind in ("aux", "test")))
    np.savez_compressed(buffer, seal=loaded.split.seal, adapter_sha256=loaded.adapter_sha256, **arrays)
    write_atomically(folder / "scores.npz", buffer.getvalue())
    best = result.strongest["test"]
    write_exposed(folder, loaded, next(one for one in scored if one.name == best.attack))
    if loaded.split.protocol == POOLS:  # which image is in which cell, and so behind which score
        write_split(loaded.split, folder)
    write(folder / "audit.json", result)


def check_honest(attacks: Mapping[str, Attack]) -> None:
    """See whether there is an attack to choose on aux.

    Raises:
        ConfigError: all of them saw aux in training.
    """
    if all(attack.info.saw_aux for attack in attacks.values()):
        names = ", ".join(attacks)
        raise ConfigError(f"--attacks got {names} alone, which the run has trained on aux; add another, such as loss")


def audit_settings(config: AuditConfig) -> dict[str, Any]:
    """The options that decide an audit's numbers."""
    config = config.with_counts()
    return {
        "tier": config.tier if config.attacks is None else None,
        "attacks": config.chosen_attacks,
        "num_timesteps": config.num_timesteps,
        **{name: getattr(config, name) for name in COUNTS[config.tier]},
        "target_delta": config.target_delta,
        "seed": config.seed,
        "mixed_precision": config.mixed_precision if config.mixed_precision != "no" else None,
        "shadows": config.shadows,
        "shadow_signal": config.shadow_signal if config.shadows else None,
        "shadow_config": files_sha256([Path(config.shadow_config)]) if config.shadow_config else None,
        "positive_control": config.positive_control_steps if config.positive_control else None,
        "attack_encoder": encoder_weights(config.attack_encoder) if uses_encoder(config) else None,
    }


def uses_encoder(config: AuditConfig) -> bool:
    """Whether an attack, or a gate, asks --attack_encoder."""
    names = [*config.chosen_attacks, *([config.shadow_signal] if config.shadows else [])]
    return config.attack_encoder != BUNDLED or any(name in WITH_ENCODER for name in names)


def same_audit(before: Audit, config: AuditConfig) -> bool:
    """Whether an audit of this adapter and split is what ``audit`` would write with these options.

    Of the attacks of a tier those may be missing that have nothing to see in some adapters. Earlier versions told the
    encoder only where copies were looked for."""
    memorisation = before.memorisation
    encoder = ((memorisation and memorisation.settings.encoder) or BUNDLED) if uses_encoder(config) else None
    before_settings = {"attack_encoder": encoder, **before.settings}
    settings = audit_settings(config)
    if config.attacks is None:
        settings["attacks"] = [
            name for name in settings["attacks"] if name in before_settings.get("attacks", ()) or not _blinded(name)
        ]
    base = find_subject(config.adapter or "").config
    return all(before_settings.get(name) == value for name, value in settings.items()) and same_search(
        memorisation, config, base.pretrained_model_name_or_path, base.revision
    )


def _blinded(name: str) -> bool:
    """Whether ``chosen_attacks`` leaves an attack out where there is nothing for it to see."""
    if name in SHADOW:
        return False
    info: AttackInfo = load(ATTACKS, name.removesuffix(LOW_PASS), "attacks").info
    return info.access in (Access.WHITE_BOX, Access.INSIDER)


def chosen_attacks(loaded: Loaded, config: AuditConfig, progress: bool) -> tuple[dict[str, Attack], dict[str, Attack]]:
    """The attacks on the adapter, and those on the base model."""
    attacks = load_attacks(config.chosen_attacks, config)
    unseen = out_of_reach(loaded.adapted)
    for access, reason in unseen.items() if config.attacks is None else ():
        blind = [name for name, attack in attacks.items() if attack.info.access is access]
        attacks = {name: attack for name, attack in attacks.items() if name not in blind}
        if blind and progress:
            say(f"left out, since {reason}: {', '.join(blind)}")
    check_honest(attacks)
    return attacks, base_attacks(list(attacks), config, gradients=Access.WHITE_BOX not in unseen)


def signals_of(
    seed: int, batch_size: int, progress: bool, subject: Loaded, attacks: Mapping[str, Attack], title: str
) -> dict[tuple[str, str], Floats]:
    """The signals of attacks on every image of a shadow adapter, or on every canary."""
    images = len(attacks) * sum(subject.split.sizes[c] for c in ATTACKED)
    with bar(images, title, unit="signal", show=progress) as display:
        on_batch = lambda base, name, images, cached: display.update(images)  # noqa: E731
        return Collector(subject, seed, batch_size).signals(attacks, ATTACKED, on_batch=on_batch)


@contextmanager
def progress_of(plan: CostPlan | None, show: bool) -> Iterator[tuple[Any, OnBatch]]:
    """A bar of the passes that the plan foresees, and what brings it up to date."""
    passes = {(step.base, step.name): step.passes for step in plan.steps} if plan else {}
    with bar(plan.left if plan else 0, f"audit {plan.title if plan else ''}", unit="pass", show=show) as display:

        def on_batch(base: bool, name: str, images: int, cached: bool) -> None:
            display.update(0 if cached else images * passes.get((base, name), 0))

        yield display, on_batch
