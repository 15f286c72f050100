"""The words of a report: pure functions from records to plain sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from smplora.core.wording import COUNTS, count, decimal, percent, together
from smplora.results.attack import Group, Numbers
from smplora.results.audit import LEVELS, Level
from smplora.results.estimate import Estimate, RateAtFpr
from smplora.results.subjects import ReportedAdapter

NOT_MEASURED = "not measured"
GROUP_WORDS: Mapping[Group, str] = {"test": "test members", "aux_members": "aux members"}
LEVEL_WORDS: dict[Level, str] = {"invalid": "Invalid", "red": "Leaks", "amber": "Unclear", "green": "No leak found"}

# One for each number in the order of its first appearance on the page.
TERMS = (
    ("AUC", "how often an attack ranks a random member above a random unseen image: 0.5 is chance, 1 is certainty"),
    ("Members", "the images that an adapter was trained on"),
    ("Test members", "the half of them that no proxy has seen: the headline. Read by attacks fitted on the aux half"),
    (
        "Aux members",
        "the other half, which also served the proxy attack model that MP-LoRA and SMP-LoRA train against. "
        "Read by attacks fitted on the test half",
    ),
    (
        "Accuracy (ASR)",
        "share of right answers to \N{LEFT DOUBLE QUOTATION MARK}member or not?\N{RIGHT DOUBLE QUOTATION MARK}",
    ),
    (
        "TPR at 5\N{NO-BREAK SPACE}% FPR",
        "share of members found when 5\N{NO-BREAK SPACE}% of the unseen images are accused wrongly",
    ),
    ("KID, FID", "distance between generated images and real ones that were held out: 0 is best"),
    ("[low, high]", "95\N{NO-BREAK SPACE}% interval"),
)


def digits_for(estimate: Estimate) -> int:
    """Decimals that show three significant digits of the value, or of its uncertainty where that is larger."""
    ends = [end for end in (estimate.low, estimate.high) if end is not None]
    largest = max(abs(estimate.value or 0.0), (max(ends) - min(ends)) / 2 if ends else 0.0)
    return 2 if largest == 0 else min(6, max(0, 2 - math.floor(math.log10(largest))))


def interval(estimate: Estimate | None, digits: int = 2, scale: float = 1.0) -> str:
    """``[0.85, 0.97]``, or nothing where an end is missing."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    return f"[{decimal(scale * estimate.low, digits)}, {decimal(scale * estimate.high, digits)}]"


def unresolvable(rate: RateAtFpr) -> str:
    """Why a rate is not shown."""
    return f"not resolvable (needs {rate.needs_nonmembers:,} non-members)"


def cells(sizes: Mapping[str, int]) -> str:
    """Sizes of a split's cells, ``{"aux_nonmember": 50}`` as ``50 aux non-members``."""
    named = [
        f"{n:,} {name.replace('nonmember', 'non-member').replace('_', ' ')}" + ("s" if name.endswith("member") else "")
        for name, n in sizes.items()
    ]
    return f"{together(named)} images" if named else "sizes unknown"


def verdict_numbers(subject: ReportedAdapter) -> Numbers:
    """What the attack named by the verdict achieves on the group named by it."""
    return subject.audit.numbers(subject.audit.verdict.group)


def most_exposed_first(subjects: Sequence[ReportedAdapter]) -> list[ReportedAdapter]:
    """By level, worst first, then by how far the verdict's attack is from chance."""
    return sorted(subjects, key=lambda s: (LEVELS.index(s.audit.verdict.level), -verdict_numbers(s).exposure))


def attacker_is_right(numbers: Numbers) -> str:
    """How often, in words for everybody: the AUC that the tables show, read as a duel."""
    auc, reverse = numbers.auc.value, numbers.auc.high < 0.5
    turned = " by reversing the attack's predictions" if reverse else ""
    return (
        f"an attacker who is shown one image that was used and one that was not picks the right one "
        f"{percent(1 - auc if reverse else auc)} of the time{turned} (chance: {percent(0.5)})"
    )


def headline(subjects: Sequence[ReportedAdapter]) -> str:
    """One sentence for the whole page: the most exposed adapter, how exposed it is, and how many others fare how."""
    worst, *others = most_exposed_first(subjects)
    level, right = worst.audit.verdict.level, attacker_is_right(verdict_numbers(worst))
    if level == "invalid":
        return f"{worst.label}: {worst.audit.verdict.sentence}"
    if level == "green":
        who = worst.label if not others else f"these {count(len(subjects), 'adapter')}"
        best = "" if not others else f"; even for {worst.label}"
        lead = f"No attack tried here could say which images {who} {'were' if others else 'was'} trained on{best}"
        return f"{lead}{', ' if others else ': '}{right}; this is no guarantee against other attacks."
    gives = "gives its training images away" if level == "red" else "may give its training images away"
    if not others:
        return f"{worst.label} {gives}: {right}."
    verbs = {
        "invalid": ("has an invalid audit", "have invalid audits"),
        "red": ("leaks", "leak"),
        "amber": ("is unclear", "are unclear"),
        "green": ("shows no leak", "show no leak"),
    }
    if len(others) == 1:
        return f"{worst.label} {gives}: {right}; {others[0].label} {verbs[others[0].audit.verdict.level][0]}."
    tally = [(n, verbs[level][n > 1]) for level in LEVELS if (n := sum(s.audit.verdict.level == level for s in others))]
    if len(tally) == 1:
        return f"{worst.label} {gives}: {right}; the {count(len(others), 'other adapter')} {tally[0][1]}."
    rest = together([f"{COUNTS[n] if n < len(COUNTS) else n} {verb}" for n, verb in tally])
    return f"{worst.label} {gives}: {right}; of the {count(len(others), 'other adapter')}, {rest}."
