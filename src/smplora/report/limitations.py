"""What a report must not be taken for: comparisons that do not hold, and everything that nobody measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from smplora.core.files import BUNDLED
from smplora.core.wording import count, percent, together
from smplora.results.attack import AttackResult
from smplora.results.audit import UNCROSSED
from smplora.results.quality import Quality
from smplora.results.subjects import ReportedAdapter, flat

OF_EARLIER_VERSIONS = (
    "audited by an earlier version, whose numbers on aux members were too sure of themselves and whose "
    "verdict depended on the number of attacks. Run the same 'smplora audit' again."
)
SHADOWS = "Attacks that train shadow models"
# benchmarks/results/shadows.json: offline LiRA and the calibrated loss on the test members of a LoRA
WITH_SHADOWS = (
    "They can find far more: on a LoRA of the bundled model, 300 steps, an AUC of 0.92 where the best attack of the "
    "quick tier had 0.79. `smplora audit --tier strong` or `--shadows 8` trains them."
)
UNTRIED: tuple[tuple[str, Callable[[AttackResult], bool]], ...] = (
    (
        "Attacks that look inside the model (gradients, for example GSA)",
        lambda attack: "white" in attack.access.lower(),
    ),
    (
        f"{SHADOWS} (for example LiRA, RMIA)",
        lambda attack: any(w in f"{attack.name} {attack.title}".lower() for w in ("shadow", "lira", "rmia")),
    ),
    (
        "Attacks that only see generated images",
        lambda attack: "black" in attack.access.lower(),
    ),
)


def cautions(subjects: Sequence[ReportedAdapter]) -> list[str]:
    """Why some rows of the page must not be compared with each other; empty if they may."""
    checks: tuple[tuple[str, Callable[[ReportedAdapter], str | None]], ...] = (
        ("The subjects were audited on different splits", lambda s: repr((s.audit.split.seal, _attacked(s)))),
        ("The subjects adapt different base models", lambda s: s.audit.subject.model),
        ("The audits are of different versions", lambda s: s.audit.format),
        ("The audits ran with different settings", lambda s: repr(sorted(flat(s.audit.settings).items()))),
        ("Not every attack ran on every subject", lambda s: repr(sorted(attack.name for attack in s.audit.attacks))),
        (
            "Image quality was measured in different ways",
            lambda s: repr(_how_measured(s.quality)) if s.quality else None,
        ),
    )
    old = [s.label for s in subjects if s.audit.format == UNCROSSED]
    lines = [f"{together(old)}: {OF_EARLIER_VERSIONS}"] if old else []
    for text, key in checks:
        groups = _grouped(subjects, key)
        if len(groups) > 1:
            parted = " | ".join(together(labels) for labels in groups.values())
            lines.append(f"{text}, so their numbers are not comparable: {parted}.")
    return lines


def _attacked(subject: ReportedAdapter) -> dict[str, int]:
    """Images of the cells that attacks look at: how many reference images are left is a matter of quality."""
    return {cell: n for cell, n in subject.audit.split.cells.items() if cell != "reference"}


def _how_measured(quality: Quality) -> tuple[object, ...]:
    """What must agree where image quality is compared."""
    own = (quality.n_generated, quality.seed, quality.num_inference_steps, quality.guidance_scale, quality.features)
    return (quality.against.held_out.n, *own)


def shadows_were_trained(subject: ReportedAdapter) -> bool:
    """Whether an attack that compares with shadow adapters is among the subject's."""
    return any(dict(UNTRIED)[f"{SHADOWS} (for example LiRA, RMIA)"](attack) for attack in subject.audit.attacks)


def not_measured(subjects: Sequence[ReportedAdapter]) -> list[str]:
    """Sentences about what the page's numbers leave open, computed from what is there; never empty."""
    return [
        *_rates(subjects),
        *_quality(subjects),
        *(_features(subjects) if any(s.quality is not None for s in subjects) else []),
        *_variation(subjects),
        *_attacks(subjects),
        *_copies(subjects),
        "A green light is no guarantee: it says that these attacks, with this many images, found nothing.",
    ]


def _grouped(
    subjects: Sequence[ReportedAdapter], key: Callable[[ReportedAdapter], str | None]
) -> Mapping[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for subject in subjects:
        value = key(subject)
        if value is not None:
            groups[value].append(subject.label)
    return groups


def _of(labels: Sequence[str], subjects: Sequence[ReportedAdapter]) -> str:
    """Names the subjects concerned, unless it is all of them."""
    return "" if len(labels) == len(subjects) else f" ({together(labels)})"


def _rates(subjects: Sequence[ReportedAdapter]) -> list[str]:
    missing: dict[tuple[float, int, int], dict[str, None]] = defaultdict(dict)
    for subject in subjects:
        for attack in subject.audit.attacks:
            for fpr, rate in attack.test.rates.items():
                if not rate.resolvable:
                    missing[fpr, rate.needs_nonmembers, attack.test.n_nonmembers][subject.label] = None
    return [
        f"The share of members found at {percent(fpr)} false alarms: not resolvable with {held:,} unseen images, "
        f"it needs {needed:,}{_of(list(labels), subjects)}."
        for (fpr, needed, held), labels in sorted(missing.items())
    ]


def _features(subjects: Sequence[ReportedAdapter]) -> list[str]:
    digits = {shown for shown, _ in BUNDLED.values()}
    others = [
        s.label
        for s in subjects
        if s.quality and s.quality.features[0] == "tiny" and s.audit.subject.model not in digits
    ]
    lines = ["FID against training and against held-out images: sets of different size, so the two are not comparable."]
    if others:
        lines.append(
            f"Image quality of {together(others)} as people see it: KID and FID here use a network that knows digits "
            "only (--features has others); the loss on held-out images does not depend on it."
        )
    return lines


def _quality(subjects: Sequence[ReportedAdapter]) -> list[str]:
    unmeasured = [subject.label for subject in subjects if subject.quality is None]
    lines = []
    if unmeasured:
        who = "any adapter" if len(unmeasured) == len(subjects) else together(unmeasured)
        lines.append(f"Image quality of {who}: run `smplora evaluate`. An adapter that learned nothing leaks nothing.")
    reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
    for subject in subjects:
        held_out = subject.quality.against.held_out if subject.quality else None
        for name, estimate in (("KID", held_out.kid), ("FID", held_out.fid)) if held_out else ():
            if estimate.value is None:
                reasons[name, estimate.reason or ""].append(subject.label)
    for (name, reason), labels in reasons.items():
        why = f": {reason.rstrip('.')}" if reason else ""
        lines.append(f"Held-out {name}{_of(labels, subjects)}{why}.")
    return lines


def _variation(subjects: Sequence[ReportedAdapter]) -> list[str]:
    """Chance enters through the training seed and through the draw of the split; intervals cover neither."""
    seeds: dict[str, set[str]] = defaultdict(set)
    for subject in subjects:
        seeds[subject.audit.subject.objective].add(subject.run.config.get("seed", "unknown"))
    splits = {subject.audit.split.seal for subject in subjects}
    single = [objective for objective, values in seeds.items() if len(values) == 1]
    lines = []
    if single:
        who = "every objective" if len(single) == len(seeds) else together(single)
        lines.append(
            f"Variation between training seeds: {who} was trained with one seed, and the intervals do not cover it."
        )
    if len(splits) == 1:
        lines.append(
            "Variation between splits: which images became members was drawn once. Differences between methods that "
            "are smaller than the intervals may be luck."
        )
    if not lines:
        lines.append(
            f"Variation beyond {count(len(splits), 'split')} and the few seeds here: the intervals cover one run each."
        )
    return lines


def _attacks(subjects: Sequence[ReportedAdapter]) -> list[str]:
    lines = []
    for text, matches in UNTRIED:
        without = [s.label for s in subjects if not any(matches(attack) for attack in s.audit.attacks)]
        if without:
            more = f" {WITH_SHADOWS}" if text.startswith(SHADOWS) else ""
            lines.append(f"{text} were not run{_of(without, subjects)}.{more}")
    return lines


def _copies(subjects: Sequence[ReportedAdapter]) -> list[str]:
    lines, without = [], [s.label for s in subjects if s.audit.memorisation is None]
    if without:
        lines.append(
            f"Whether training images can be drawn out of an adapter{_of(without, subjects)}: the attacks only ask "
            "whether a given image was used; `smplora audit --memorisation` looks for copies."
        )
    if len(without) < len(subjects):
        lines.append(
            "Copies that need more tries or other prompts: a few images were generated from each training caption, and "
            "copies that are mirrored, turned or a part of the image were not looked for."
        )
    return lines
