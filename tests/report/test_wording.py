"""The words of the report, what it admits not to know, and where it puts its labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

import example_subjects
from smplora.core.wording import NBSP
from smplora.report import wording
from smplora.report.figures import overview
from smplora.report.figures.svg import style, thinned
from smplora.report.limitations import cautions, not_measured
from smplora.report.tables import summary_rows
from smplora.results.attack import AttackResult
from smplora.results.audit import Level
from smplora.results.estimate import Estimate, Proportion
from smplora.results.subjects import ReportedAdapter, collect

EXAMPLE = vars(example_subjects)


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReportedAdapter, ...]:
    return collect(EXAMPLE["write_subjects"](tmp_path_factory.mktemp("wording")))


def with_level(subject: ReportedAdapter, level: Level) -> ReportedAdapter:
    audit = subject.audit
    return replace(subject, audit=replace(audit, verdict=replace(audit.verdict, level=level)))


def changed(
    subject: ReportedAdapter, *, more: Sequence[AttackResult] = (), without: int = 0, seal: str | None = None
) -> ReportedAdapter:
    """With other attacks, on another split."""
    audit = subject.audit
    split = replace(audit.split, seal=seal or audit.split.seal)
    return replace(subject, audit=replace(audit, attacks=(*audit.attacks[without:], *more), split=split))


def shown(sentence: str) -> str:
    return sentence.replace(NBSP, " ")


def test_headline_leads_with_the_most_exposed_and_counts_the_rest(five: Sequence[ReportedAdapter]) -> None:
    expected = (
        "LoRA gives its training images away: an attacker who is shown one image that was used and one that was not "
        "picks the right one 91 % of the time (chance: 50 %); "
        "of the four other adapters, two leak, one is unclear and one shows no leak."
    )
    assert shown(wording.headline(five)) == expected
    assert shown(wording.headline(five[::-1])) == expected


def test_headline_for_one_and_for_two(five: Sequence[ReportedAdapter]) -> None:
    assert shown(wording.headline(five[:1])).endswith("(chance: 50 %).")
    assert shown(wording.headline([five[0], five[4]])).endswith("; SMP-LoRA shows no leak.")
    assert shown(wording.headline(five[:3])).endswith("; the two other adapters leak.")
    assert "LoRA may give its training images away" in wording.headline([with_level(five[0], "amber")])


def test_green_headline_promises_nothing(five: Sequence[ReportedAdapter]) -> None:
    alone = shown(wording.headline([five[4]]))
    assert alone.startswith("No attack tried here could say which images SMP-LoRA was trained on: ")
    assert "picks the right one 52 % of the time (chance: 50 %)" in alone
    assert alone.endswith("; this is no guarantee against other attacks.")
    both = shown(wording.headline([five[4], replace(with_level(five[1], "green"), label="other")]))
    assert "these two adapters were trained on; even for other, " in both


def test_the_headline_has_the_number_of_the_tables(five: Sequence[ReportedAdapter]) -> None:
    numbers = replace(wording.verdict_numbers(five[0]), n_members=90, n_nonmembers=30, asr=Proportion(0.99, 0.98, 1.0))
    assert "right one 91 % of the time (chance: 50 %)" in shown(wording.attacker_is_right(numbers))
    assert summary_rows(five)[0].cells[1].text == "0.91"


def test_scores_that_are_wrong_systematically_count_as_leak(five: Sequence[ReportedAdapter]) -> None:
    numbers = replace(wording.verdict_numbers(five[0]), auc=Proportion(0.2, 0.1, 0.3), asr=Proportion(0.3, 0.2, 0.4))
    assert numbers.exposure == pytest.approx(0.3)
    assert "80 % of the time by reversing the attack's predictions" in shown(wording.attacker_is_right(numbers))


def test_strongest_attack_is_the_verdicts_on_its_group_and_the_farthest_on_the_other(
    five: Sequence[ReportedAdapter],
) -> None:
    whole = five[0].audit
    audit = replace(whole, verdict=replace(whole.verdict, attack="loss", group="aux_members"))
    assert [audit.chosen(group).name for group in ("aux_members", "test")] == ["loss", "calibrated_loss"]


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0.84, "84 %"), (0.0444, "4.4 %"), (0.001, "0.1 %"), (0.05, "5 %"), (0.0, "0 %"), (1.0, "100 %")],
)
def test_percent(fraction: float, text: str) -> None:
    assert shown(wording.percent(fraction)) == text


@pytest.mark.parametrize(
    ("value", "digits"), [(0.0123, 4), (19.74, 1), (110.2, 0), (0.0, 2), (1e-9, 6), (-0.02, 4)]
)  # fmt: skip
def test_three_digits_are_shown(value: float, digits: int) -> None:
    assert wording.digits_for(Estimate(value)) == digits


def test_no_more_digits_are_shown_than_the_interval_supports() -> None:
    assert wording.digits_for(Estimate(-0.0003, -0.02, 0.02)) == 4


def test_negative_numbers_have_a_minus_and_zero_has_none() -> None:
    assert wording.decimal(-0.12, 1) == "\N{MINUS SIGN}0.1"
    assert wording.decimal(-0.001, 2) == "0.00"


def test_gaps_name_what_these_subjects_leave_open(five: Sequence[ReportedAdapter]) -> None:
    gaps = shown(" ".join(not_measured(five)))
    assert "at 0.1 % false alarms: not resolvable with 50 unseen images, it needs 5,000." in gaps
    assert "at 10 % false alarms" not in gaps
    assert f"Image quality of {EXAMPLE['HOSTILE']}" in gaps
    assert "every objective was trained with one seed" in gaps
    assert "which images became members was drawn once" in gaps
    assert all(word in gaps for word in ("gradients", "shadow models", "only see generated images", "no guarantee"))


def test_gaps_close_when_more_is_measured(five: Sequence[ReportedAdapter]) -> None:
    extra = [
        replace(five[0].audit.attacks[0], name="gsa", access="white box"),
        replace(five[0].audit.attacks[0], name="lira", title="Shadow models"),
        replace(five[0].audit.attacks[0], name="blackbox", access="black box"),
    ]
    other = replace(five[0].run, config={**five[0].run.config, "seed": "1"})
    subjects = [
        changed(five[0], more=extra),
        replace(changed(five[0], more=extra, seal="another"), run=other, label="second"),
    ]
    gaps = " ".join(not_measured(subjects))
    assert not any(text in gaps for text in ("gradients", "shadow", "only see generated", "one seed", "drawn once"))
    assert "two splits" in gaps
    assert "gradients, for example GSA) were not run (LoRA)" in " ".join(not_measured([five[0], subjects[1]]))


def test_subjects_that_cannot_be_compared_are_called_out(five: Sequence[ReportedAdapter]) -> None:
    assert cautions(five) == []
    mixed = [five[0], changed(five[4], seal="another", without=1)]
    found = cautions(mixed)
    assert len(found) == 2
    assert "different splits" in found[0]
    assert "LoRA | SMP-LoRA" in found[0]
    assert "Not every attack" in found[1]


def test_stopped_lora_is_joined_to_the_full_run(five: Sequence[ReportedAdapter]) -> None:
    looks = {subject: style(i) for i, subject in enumerate(five)}
    joined = str(overview.scatter(five, looks, "kid"))
    alone = str(overview.scatter([five[0], five[4]], looks, "kid"))
    assert "stroke: var(--muted, #5c6672); stroke-linecap: square" in joined
    assert "stroke: var(--muted, #5c6672); stroke-linecap: square" not in alone
    assert "LoRA, step 500" in joined
    assert "LoRA, step 500" not in alone
    assert overview.scatter([five[3]], looks, "kid") is None


def test_eleven_subjects_look_different() -> None:
    assert len({style(i) for i in range(49)}) == 49


def test_long_curves_are_thinned_to_means() -> None:
    curve = [(float(i), float(i % 2)) for i in range(1000)]
    assert thinned(curve[:300]) == curve[:300]
    assert len(thinned(curve)) == 250
    assert all(y == 0.5 for _, y in thinned(curve))
