"""Audit of scores that somebody else's attack gave: the same statistics, audit.json and page, without a model.

The sign and the threshold of each score on the test rows are fitted on the aux rows, and the other way round.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from smplora.attacks.fitting import Reading
from smplora.audit.conclusion import ScoredAttack, conclude
from smplora.audit.gates import gates, small_cells
from smplora.core.arrays import Bools, Floats
from smplora.core.environment import environment
from smplora.core.errors import DataError
from smplora.core.files import check_writable, write_atomically
from smplora.core.output import output_folder
from smplora.core.ownership import refuse_to_replace
from smplora.core.random_streams import stream_seed
from smplora.core.reading import LARGEST_TABLE, Unreadable, read_text, shortened
from smplora.core.tables import CsvTable, parse_csv
from smplora.data.cell_sizes import SMALLEST_CELL
from smplora.results.audit import FORMAT, Adapter, Audit, SplitSummary
from smplora.results.record import as_json, write
from smplora.runs.subject import RESULT_FILES
from smplora.statistics.curves import best_threshold, direction
from smplora.statistics.intervals import auc_interval

if TYPE_CHECKING:
    from smplora.config.audit import AuditConfig

MEMBER, CELL = "member", "cell"
CELLS = ("aux", "test")
FINE = 20  # different values of a score, from which equal rows are no matter of chance
MOST = 1e100  # of a score: differences and squares of larger ones are infinite
OF_FILES = ("format", "subject", "split", "settings", "shadows", "memorisation", "environment")  # not of bare scores


@dataclass(frozen=True)
class Table:
    """Scores by name [n], membership [n], and which rows are aux [n] if the file says so."""

    scores: dict[str, Floats]
    is_member: Bools
    is_aux: Bools | None


def audit_scores(
    scores: Mapping[str, ArrayLike],
    member: ArrayLike,
    cell: ArrayLike | None = None,
    *,
    seed: int = 0,
    coin: bool = False,
    delta: float = 0.0,
) -> dict[str, Any]:
    """What audit.json says of ready scores (docs/formats.md), as a dictionary.

    Args:
        scores: [n] numbers of each of one or more attacks; higher means member (a reversed one is found out on aux).
        member: [n] of 0 and 1 or booleans.
        cell: [n] of "aux" and "test"; None: a random half of members and of non-members, by ``seed``, is aux.
        seed: of that half, of permutations and of the bootstrap.
        coin: whether each row's membership was drawn by an independent fair coin; then epsilon is bounded from one run.
        delta: of the (epsilon, delta) in question.

    Raises:
        DataError: scores that are not finite numbers, lengths that differ, labels other than 0 and 1, cells with fewer
            than two members or non-members.
    """
    table = _checked(scores, member, cell)
    is_aux = _aux_rows(table, seed)
    content: dict[str, Any] = as_json(_audited(table, is_aux, "scores", "", seed, coin, delta))
    return {name: value for name, value in content.items() if name not in OF_FILES}


def audit_signals(config: AuditConfig) -> Audit:
    """The audit of ``--signals``: write audit.json and scores.npz; returns the content of the first.

    Raises:
        UserError: anything that the user can mend.
    """
    path, folder = Path(config.signals or ""), Path(config.output_dir or "")
    refuse_to_replace(folder, ("audit.json", "scores.npz", "report.html"), "output_dir")
    check_writable(folder)
    table = read_signals(path)
    is_aux = _aux_rows(table, config.seed)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    result = _audited(table, is_aux, path.name, digest, config.seed, config.coin_flip, config.target_delta)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, seal=digest, is_aux=is_aux, member=table.is_member, **table.scores)  # type: ignore[arg-type]
    with output_folder(folder, RESULT_FILES["audit"]):
        write_atomically(folder / "scores.npz", buffer.getvalue())
        write(folder / "audit.json", result)
    return result


def read_signals(path: Path) -> Table:
    """The table of a CSV file: a column ``member`` of 0 and 1, optionally ``cell`` of aux and test, else scores.

    Raises:
        DataError: it cannot be read, or anything in it cannot be used; one message with the first of each kind.
    """
    name = f"--signals '{path}'"
    try:
        table = parse_csv(read_text(path, LARGEST_TABLE))
    except (OSError, Unreadable) as error:
        raise DataError(
            f"{name} cannot be read: {getattr(error, 'strerror', None) or error}; give a CSV file"
        ) from error
    if table.problems:
        line, problem = table.problems[0]
        raise DataError(f"{name} line {line}: {problem}")
    if not table.rows:
        raise DataError(f"{name} has no rows; needed: a header line with '{MEMBER}' and scores, then one row each")
    columns = [column for column in table.names if column not in (MEMBER, CELL)]
    if MEMBER not in table.names:
        there = ", ".join(table.names)
        raise DataError(f"{name} has no column '{MEMBER}' (1: member, 0: non-member); columns: {there}")
    if "" in table.names:
        raise DataError(f"{name} has a column without a name")
    if not columns:
        raise DataError(f"{name} has no score column beside '{MEMBER}'")
    cells = [row[CELL].strip() for _, row in table.rows] if CELL in table.names else None
    try:
        scores = {column: _numbers(column, table) for column in columns}
        return _checked(scores, _numbers(MEMBER, table), cells)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error


def _numbers(column: str, table: CsvTable) -> list[float]:
    numbers = []
    for line, row in table.rows:
        text = row[column].strip()
        try:
            if "_" in text:  # which Python passes over
                raise ValueError
            numbers.append(float(text))
        except ValueError:
            shown = shortened(text) if text else "nothing"
            raise DataError(f"column {shortened(column)} has {shown} in line {line}; allowed: numbers") from None
    return numbers


def _checked(scores: Mapping[str, ArrayLike], member: ArrayLike, cell: ArrayLike | None) -> Table:
    labels = np.asarray(member)
    if not scores:
        raise DataError("no scores were given")
    if labels.ndim != 1 or not np.isin(labels, (0, 1)).all():
        raise DataError(f"'{MEMBER}' must hold 0 and 1 only, one per row")
    is_member = labels.astype(bool)
    if is_member.all() or not is_member.any():
        raise DataError(f"'{MEMBER}' is {int(is_member.all())} in every row; needed: members (1) and non-members (0)")
    checked: dict[str, Floats] = {}
    for name, values in scores.items():
        try:
            column = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError):
            raise DataError(f"score '{name}' does not hold numbers") from None
        if column.shape != is_member.shape:
            raise DataError(f"score '{name}' has shape {column.shape}, '{MEMBER}' {is_member.shape}")
        bad = np.flatnonzero(~(np.abs(column) <= MOST))
        if bad.size:
            raise DataError(
                f"score '{name}' is NaN, infinite or beyond {MOST:g} in {bad.size} of {column.size} rows, first in "
                f"data row {bad[0] + 1}; remove those rows or mend the attack"
            )
        if np.ptp(column) == 0:
            raise DataError(f"score '{name}' is {column[0]:g} in every row: it ranks nothing; leave it out or mend it")
        checked[str(name)] = column
    is_aux = None
    if cell is not None:
        names = np.asarray(cell).astype(str)
        if names.shape != is_member.shape:
            raise DataError(f"'{CELL}' has shape {names.shape}, '{MEMBER}' {is_member.shape}")
        strange = names[~np.isin(names, CELLS)]
        if strange.size:
            raise DataError(f"'{CELL}' has '{strange[0]}'; allowed: {', '.join(CELLS)}")
        is_aux = names == "aux"
    return Table(checked, is_member, is_aux)


def _aux_rows(table: Table, seed: int) -> Bools:
    """Which rows are aux [n].

    Raises:
        DataError: a cell with fewer than two members or non-members.
    """
    if table.is_aux is not None:
        is_aux = table.is_aux
    else:
        rng, is_aux = np.random.default_rng(stream_seed(seed, "signals")), np.zeros(len(table.is_member), dtype=bool)
        for rows in (np.flatnonzero(table.is_member), np.flatnonzero(~table.is_member)):
            is_aux[rng.permutation(rows)[: len(rows) // 2]] = True
    small = [f"{size} {name}" for name, size in _sizes(table, is_aux).items() if size < SMALLEST_CELL]
    if small:
        raise DataError(
            f"cells are too small ({', '.join(small)}); needed: {SMALLEST_CELL} rows or more in each of aux and test, "
            "members and non-members"
        )
    return is_aux


def _sizes(table: Table, is_aux: Bools) -> dict[str, int]:
    return {
        f"{name}_{kind}": int((rows & members).sum())
        for kind, members in (("member", table.is_member), ("nonmember", ~table.is_member))
        for name, rows in (("aux", is_aux), ("test", ~is_aux))
    }


def _audited(table: Table, is_aux: Bools, label: str, seal: str, seed: int, coin: bool, delta: float) -> Audit:
    member, sizes = table.is_member, _sizes(table, is_aux)
    scored = []
    for name, scores in table.scores.items():
        test, aux = (read_column(scores, member, is_aux, half) for half in CELLS[::-1])
        about = {
            "name": name,
            "title": name,
            "access": "scores as given",
            "reference": "",
            "bibtex": "",
            "fitted_on": "the other half (sign and threshold)",
            "all_rows": {"n": len(scores), "auc": auc_interval(scores, member).as_dict()},
        }
        scored.append(ScoredAttack(about, test, aux))
    unchecked: tuple[str, ...] = (
        "only scores were given: nothing here checks that members and non-members come from one source",
        "scores are taken as made without the label of their own row: of rows that an attack was fitted on they look "
        "like a leak",
    )
    unchecked += repeated_rows(table)
    conclusion = conclude(scored, member[is_aux], member[~is_aux], seed=seed, coin=coin, delta=delta)
    protocol = "coin" if coin else "as given" if table.is_aux is not None else "random half"
    return Audit(
        format=FORMAT,
        subject=Adapter(label=label, objective="unknown"),
        split=SplitSummary(protocol, seal, sizes),
        settings={"signals": list(table.scores), "target_delta": delta, "seed": seed},
        gates=gates([], [*unchecked, *small_cells(sizes)]),
        **vars(conclusion),
        environment=environment(),
    )


def repeated_rows(table: Table) -> tuple[str, ...]:
    """A sentence where rows are there again, label and all scores, that would hardly be so by chance."""
    columns = np.column_stack([table.is_member, *table.scores.values()])
    again = len(columns) - len(np.unique(columns, axis=0))
    fine = any(len(np.unique(scores)) >= FINE for scores in table.scores.values())
    if not again or not fine:
        return ()
    return (
        f"{again} of {len(columns)} rows equal another one in label and all scores: if images are there twice, "
        "intervals and p claim too much",
    )


def read_column(scores: Floats, is_member: Bools, is_aux: Bools, half: str) -> Reading:
    """A ready score on "test" or "aux", with the sign and the threshold that the other half shows. Nothing else is
    fitted."""
    here = is_aux if half == "aux" else ~is_aux
    there = is_member[~here]
    sign = direction(scores[~here], there)
    held = sign * scores[~here]
    return Reading(sign * scores[here], best_threshold(held, there), sign, held)
