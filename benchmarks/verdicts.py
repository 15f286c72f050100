"""Whole verdicts of simulated audits: false alarms, what intervals cover, and what attacks that find nothing cost.

    python benchmarks/verdicts.py [--audits 400] [--samples 2000]     -> benchmarks/results/verdicts.json

No model: signals are normal numbers, 8 columns an attack, of which a logistic regression learns. "null": nothing
leaks; the share of audits in which anything is significant on either group of members, and in which the verdict is red
or green; and the same for aux members read out of fold over one set, as versions before audit/3 did. "covered": how
often the strongest attack's interval (at its own level) and every attack's 95 % interval hold the AUC that the fitted
classifier truly has. "added": a leak of the stated AUC beside 0, 4 or 24 attacks that find nothing; how often it is
significant and red, and by how much its corrected p grows. "auc_interval": coverage of the 95 % and 99.2 % intervals of
an AUC by kind of scores and cell size. "rate_interval": coverage of the interval of a true positive rate, and what
Clopper-Pearson's at the threshold that was used would cover.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from math import sqrt
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import norm

from common import command, parser, write_result
from smplora.attacks.base import Access, Attack, AttackInfo
from smplora.attacks.fitting import Reading, learn
from smplora.attacks.scorers import Logistic
from smplora.audit.conclusion import Conclusion, ScoredAttack, conclude
from smplora.core.arrays import Bools, Floats
from smplora.results.attack import GROUPS
from smplora.statistics.claims import CLAIM_LEVEL
from smplora.statistics.intervals import auc_interval, clopper_pearson
from smplora.statistics.rates import resolvable, tpr_at_fpr

COLUMNS = 8
PERMUTATIONS = 499
KINDS = ("normal", "wide", "exponential", "exposed")
AREAS = (0.5, 0.65, 0.8, 0.9, 0.95, 0.99)


class Fitted(Attack):
    """Logistic regression on the columns."""

    info = AttackInfo("Fitted", Access.GREY_BOX, "", "")

    def scorer(self, seed: int) -> Logistic:
        """A fresh one."""
        return Logistic()


class Simulated(NamedTuple):
    """One audit: what was found, what was found with aux read out of fold, and the true AUCs of group and attack."""

    crossed: Conclusion
    out_of_fold: Conclusion
    truth: dict[tuple[str, str], float]


def labels(size: int) -> Bools:
    """Members first."""
    return np.arange(2 * size) < size


def audited(size: int, shifts: list[float], seed: int) -> Simulated:
    """Attacks that are fitted on one half and read on the other; members are shifted by so much in each column."""
    rng, member = np.random.default_rng([size, len(shifts), seed]), labels(size)
    scored, truth = [], {}
    for number, shift in enumerate(shifts):
        halves = [rng.normal(size=(2 * size, COLUMNS)) + shift * member[:, None] for _ in GROUPS]
        learned = [learn(Fitted(), half, member, seed) for half in halves]
        readings = learned[0].read(halves[1]), learned[1].read(halves[0])
        for group, one in zip(GROUPS, learned, strict=True):
            scale, line = one.scorer.model[0].scale_, one.scorer.model[1].coef_[0]  # type: ignore[attr-defined]
            weights = one.sign * line / scale
            truth[group, f"a{number}"] = float(norm.cdf(weights.sum() * shift / np.linalg.norm(weights) / sqrt(2)))
        about = {"name": f"a{number}", "title": "A", "access": "grey box", "fitted_on": "the other half"}
        scored.append(ScoredAttack(about, *readings))
    before = [replace(one, aux=_held(one)) for one in scored]
    both = (
        conclude(kind, member, member, seed=seed, failed_gates=(), permutations=PERMUTATIONS)
        for kind in (scored, before)
    )
    return Simulated(*both, truth)


def _held(one: ScoredAttack) -> Reading:
    assert one.aux
    return Reading(one.test.held, one.test.threshold, one.test.sign, one.aux.held)


def significant(found: Conclusion) -> bool:
    """On either group."""
    return min(found.strongest[group].smallest_p_corrected for group in GROUPS) < 0.05


def share(flags: list[bool]) -> float:
    """Rounded."""
    return round(float(np.mean(flags)), 4)


def null_rows(audits: int, numbers: list[int]) -> Iterator[dict[str, Any]]:
    """Nothing leaks."""
    for size, attacks in product((50, 100, 200), numbers):
        runs = [audited(size, [0.0] * attacks, seed) for seed in range(max(1, audits // (5 if attacks == 25 else 1)))]
        kinds = {"": [run.crossed for run in runs], "_out_of_fold": [run.out_of_fold for run in runs]}
        row: dict[str, Any] = {"size": size, "attacks": attacks, "audits": len(runs)}
        for kind, found in kinds.items():
            row[f"significant{kind}"] = share([significant(one) for one in found])
            row[f"red{kind}"] = share([one.verdict.level == "red" for one in found])
        row["green"] = share([run.crossed.verdict.level == "green" for run in runs])
        yield row


def coverage_rows(audits: int) -> Iterator[dict[str, Any]]:
    """The first attack leaks what it leaks, the second 0.7 of it, the third nothing."""
    for size, area in product((50, 100), (0.5, 0.65, 0.8)):
        shift = sqrt(2 / COLUMNS) * float(norm.ppf(area))
        strongest, every = [], []
        for seed in range(audits):
            run = audited(size, [shift, 0.7 * shift, 0.0], seed)
            for group in GROUPS:
                best = run.crossed.strongest[group]
                strongest.append(best.auc.low <= run.truth[group, best.attack] <= best.auc.high)
                for attack in run.crossed.attacks:
                    numbers = attack.on(group)
                    assert numbers
                    every.append(numbers.auc.low <= run.truth[group, attack.name] <= numbers.auc.high)
        yield {
            "size": size, "area": area, "audits": audits, "level": CLAIM_LEVEL, "strongest": share(strongest),
            "every_at_95": share(every),
        }  # fmt: skip


def added_rows(audits: int, numbers: list[int]) -> Iterator[dict[str, Any]]:
    """A leak beside attacks that find nothing."""
    for size, area in ((50, 0.75), (100, 0.65), (100, 0.7)):
        shift = sqrt(2 / COLUMNS) * float(norm.ppf(area))
        seeds = range(max(1, audits // 4))
        runs = {n - 1: [audited(size, [shift] + [0.0] * (n - 1), seed) for seed in seeds] for n in numbers}
        alone = [run.crossed.attacks[0].test.p_value for run in runs[0]]
        for number, found in runs.items():
            p = [run.crossed.attacks[0].test.p_value for run in found]
            growth = [
                b.corrected / a.corrected for a, b in zip(alone, p, strict=True) if a and b and a.corrected < 0.05
            ]
            yield {
                "size": size, "area": area, "added": number, "audits": len(found),
                "significant": share([significant(run.crossed) for run in found]),
                "red": share([run.crossed.verdict.level == "red" for run in found]),
                "growth_of_p_median": round(float(np.median(growth)), 3) if growth else None,
            }  # fmt: skip


def scores_of(kind: str, area: float, shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Scores [samples, 2 size], members first, of a true AUC."""
    samples, size = shape
    others, members = rng.normal(size=(2, samples, size))
    if kind == "normal":
        members += sqrt(2) * float(norm.ppf(area))
    elif kind == "wide":  # members vary twice as much
        members = 2 * members + sqrt(5) * float(norm.ppf(area))
    elif kind == "exponential":
        others, members = rng.exponential(size=(2, samples, size))
        members *= area / (1 - area)
    else:  # a share of members beats everybody, the others know nothing
        members[rng.random((samples, size)) < 2 * area - 1] += 99
    return np.concatenate([members, others], axis=1)


def interval_rows(samples: int) -> Iterator[dict[str, Any]]:
    """What the intervals of one AUC cover."""
    for kind, size, area in product(KINDS, (50, 100, 500), AREAS):
        rng = np.random.default_rng([size, round(100 * area), KINDS.index(kind)])
        found: dict[str, list[bool]] = {"0.95": [], str(CLAIM_LEVEL): []}
        for scores in scores_of(kind, area, (samples, size), rng):
            for level, hits in found.items():
                interval = auc_interval(scores, labels(size), float(level))
                hits.append(interval.low <= area <= interval.high)
        yield {"kind": kind, "size": size, "area": area} | {level: share(hits) for level, hits in found.items()}


def rate_rows(samples: int) -> Iterator[dict[str, Any]]:
    """What intervals of a true positive rate cover, of the rate at exactly that false positive rate."""
    for fpr, size, area in product((0.01, 0.05, 0.1), (50, 100, 500), (0.5, 0.8, 0.95, 0.99)):
        if not resolvable(fpr, size):
            continue
        rng = np.random.default_rng([size, round(100 * area)])
        shift = sqrt(2) * float(norm.ppf(area))
        truth, used, plain = norm.sf(norm.isf(fpr) - shift), [], []
        for scores in scores_of("normal", area, (samples, size), rng):
            rate = tpr_at_fpr(scores, labels(size), fpr)
            used.append(rate.low <= truth <= rate.high)
            hits = clopper_pearson(round(rate.value * size), size)
            plain.append(hits.low <= truth <= hits.high)
        yield {"fpr": fpr, "size": size, "area": area, "covered": share(used), "clopper_pearson": share(plain)}


def main(arguments: list[str] | None = None) -> None:
    """Simulate and write."""
    options = parser(__file__, __doc__)
    options.add_argument("--audits", type=int, default=400)
    options.add_argument("--samples", type=int, default=2000)
    options.add_argument("--attacks", type=int, nargs="+", default=[1, 5, 25])
    args = options.parse_args(arguments)
    record = {
        "command": command(options, args, always=["audits", "samples"]),
        "null": list(null_rows(args.audits, args.attacks)),
        "covered": list(coverage_rows(args.audits)),
        "added": list(added_rows(args.audits, args.attacks)),
        "auc_interval": list(interval_rows(args.samples)),
        "rate_interval": list(rate_rows(args.samples)),
    }
    write_result(args.results, "verdicts", record)


if __name__ == "__main__":
    main()
