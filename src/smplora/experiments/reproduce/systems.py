"""Tables of systems: one row per run, with image quality and what an attacker finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from smplora.core.wording import decimal
from smplora.experiments.reproduce import paper
from smplora.experiments.reproduce.results import Results, described, means_over_seeds, measured
from smplora.experiments.reproduce.runs import LAMBDA, LORA, SMP, Need, PaperRun
from smplora.experiments.reproduce.section import PaperTable, RowGroup, Section, section_of
from smplora.report.tables import TableCell

Named = Mapping[str, Any]  # what names a row in the paper
HEADERS = {"fid": "FID", "kid": "KID", "asr": "ASR, %", "auc_dev": "|AUC - 0.5| / 0.5", "tpr": "TPR at 5 % FPR, %"}
PLACES = {"fid": 2, "kid": 3, "asr": 1, "auc_dev": 2, "tpr": 1}
TITLES = {"dataset": "data set", "learning_rate": "learning rate", "lambda": "λ"}
LINES = {
    "paper_protocol": "ours, paper's protocol",
    "honest": "ours, honest protocol",
    "aux_members": "ours, members that the proxy saw",
}


@dataclass(frozen=True)
class SystemRow:
    """A row of a table: what names it, the run behind it, the paper's numbers, if the paper has it."""

    labels: Named
    run: PaperRun
    paper: Named | None
    attack: str | None = None

    @property
    def need(self) -> Need:
        """What has to be trained and measured."""
        return Need(self.run, measured=self.attack is None, attacks=(self.attack,) if self.attack else ())


@dataclass(frozen=True)
class SystemsTable:
    """One of the paper's tables of systems.

    Args:
        name: as in ``assets/paper_tables.yaml``.
        run: the run behind a row.
        attack: the attack whose numbers the row shows, where it is not the usual audit.
        best_of: data sets whose SMP runs at the paper's lambda are also shown at the best lambda that is known for the
            scale.
        claim: what the paper says of it.
        observed: what the JSON file's rows say of that, sentences.
        notes: what a reader must know besides.
    """

    name: str
    title: str
    caption: str
    run: Callable[[Named], PaperRun]
    attack: Callable[[Named], str] | None = None
    best_of: tuple[str, ...] = ()
    claim: str = ""
    observed: Callable[[Sequence[Named]], list[str]] = lambda rows: []
    notes: tuple[str, ...] = ()

    def rows(self, best_lambda: float | None) -> list[SystemRow]:
        """The paper's rows, each SMP run followed by the same at ``best_lambda``, unless that is the paper's or has a
        row of its own."""
        rows = [
            SystemRow(labels, self.run(labels), numbers, self.attack(labels) if self.attack else None)
            for labels, numbers in paper.rows(self.name)
        ]
        known = {(row.run, row.attack) for row in rows}
        shown = []
        for row in rows:
            shown.append(row)
            at_best = row.run.objective == SMP and row.run.mi_lambda == LAMBDA and row.run.dataset in self.best_of
            if best_lambda is None or not at_best:
                continue
            best = replace(row.run, mi_lambda=best_lambda)
            if (best, row.attack) not in known:
                shown.append(replace(row, labels={**row.labels, "lambda": best_lambda}, run=best, paper=None))
        return shown

    def collect(self, results: Results, best_lambda: float | None) -> dict[str, Any]:
        """Every row with the paper's numbers, those of each seed and their means."""
        rows = []
        for row in self.rows(best_lambda):
            runs = results.runs_for(row.need)
            whole = [measured(run, row.attack) for run in runs if run.problem is None]
            each = iter(whole)
            rows.append(
                {
                    "labels": dict(row.labels),
                    "run": described(row.run),
                    "paper": dict(row.paper) if row.paper else None,
                    "seeds": [
                        {**run.identity(results.plan.root), **(next(each) if run.problem is None else {})}
                        for run in runs
                    ],
                    "over_seeds": means_over_seeds(whole),
                }
            )
        return {"rows": rows}

    def show(self, content: Mapping[str, Any], root: Path) -> Section:
        """The table, three or four lines for each row of the paper's."""
        rows = content["rows"]
        observed = self.observed(rows)
        numbers = [row["paper"] or {} for row in rows]
        known = {name for row in numbers for name in row} | {"kid" for row in numbers if "fid" in row}
        metrics = [name for name in paper.METRICS if name in known]
        names = list(dict.fromkeys(name for row in rows for name in row["labels"]))
        rows = [{**row, "labels": _with_lambda(row)} for row in rows] if "lambda" in names else rows
        groups = [
            RowGroup(
                tuple(_label(name, row["labels"].get(name)) for name in names),
                (
                    *([("paper", tuple(published(row["paper"], name) for name in metrics))] if row["paper"] else []),
                    *([] if row["over_seeds"] else [("ours: missing", tuple(TableCell("") for _ in metrics))]),
                    *(
                        (title, tuple(ours(row, protocol, name) for name in metrics))
                        for protocol, title in LINES.items()
                        if protocol in row["over_seeds"]
                    ),
                ),
            )
            for row in rows
        ]
        table = PaperTable(
            tuple(TITLES.get(name, name) for name in names), tuple(HEADERS[name] for name in metrics), tuple(groups)
        )
        features = dict.fromkeys(seed["features"] for row in rows for seed in row["seeds"] if "features" in seed)
        notes = [*self.notes, *([f"Our FID and KID are of {' and '.join(features)}."] if features else [])]
        return section_of(self, rows, notes=notes, table=table, observed=observed)

    def needs(self, best_lambda: float | None) -> list[Need]:
        """What has to be trained and measured."""
        return [row.need for row in self.rows(best_lambda)]


def published(numbers: Named, metric: str) -> TableCell:
    """The paper's number as it prints it."""
    value, error = numbers.get(metric), numbers.get(f"{metric}_std")
    if value is None:
        return TableCell("N/A" if metric in numbers else "")
    return TableCell(f"{value:g}", f"± {error:g}" if error is not None else "")


def ours(row: Named, protocol: str, metric: str) -> TableCell:
    """Of one seed the number with its interval, of several the mean with its standard error."""
    runs = [seed[protocol][metric] for seed in row["seeds"] if metric in seed.get(protocol, {})]
    mean = row["over_seeds"][protocol].get(metric)
    places = PLACES[metric]
    if mean is None:
        return TableCell("N/A" if runs else "", note=next((reason(value) for value in runs), ""))
    if mean["n"] > 1:
        return TableCell(decimal(mean["mean"], places), f"± {decimal(mean['standard_error'], places)}")
    only = next(r for r in runs if r["value"] is not None)
    ends = [only.get(end) for end in ("low", "high")]
    interval = "" if None in ends else f"[{', '.join(decimal(end, places) for end in ends if end is not None)}]"
    attack = next((s[protocol]["attack"] for s in row["seeds"] if protocol in s), "")
    return TableCell(decimal(mean["mean"], places), interval, attack if metric == "auc_dev" else "")


def reason(value: Named) -> str:
    """Why a number does not exist, in a few words."""
    if "needs_nonmembers" in value:
        return f"needs {value['needs_nonmembers']} non-members"
    return str(value.get("reason", "")).partition(";")[0]


def _with_lambda(row: Named) -> dict[str, Any]:
    """A row's labels, where some rows name their lambda: all games do."""
    own = {} if row["run"]["objective"] == LORA else {"lambda": row["run"]["mi_lambda"]}
    return {**own, **row["labels"]}


def _label(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name == "lambda":
        return f"{value:g}"
    return f"{value:g}" if isinstance(value, float) else str(value)
