"""The split of a final training: every image that the rehearsal's split held back is trained on too."""

from __future__ import annotations

from collections.abc import Sequence

from smplora.data.split import Split, chooses
from smplora.results.manifest import CELLS

PROTOCOL = "final"


def final_split(rehearsal: Split, kept_out: Sequence[str]) -> Split:
    """All images but those of the cells ``kept_out``; of the reference cell only those that choose are kept out. What
    is added goes to aux and test members in the proportion of the rehearsal, so that a proxy sees as large a share of
    the members. Canaries are images like any other.
    """
    canaries = rehearsal.canaries.cells if rehearsal.canaries else {}
    kept = {cell: rehearsal.cells[cell] if cell in kept_out else () for cell in CELLS}
    kept["reference"] = tuple(s for s in kept["reference"] if chooses(s))
    stay = {s.digest for samples in kept.values() for s in samples}
    aux, test = rehearsal.cells["aux_member"], rehearsal.cells["test_member"]
    more = [s for cell in CELLS[2:] for s in rehearsal.cells[cell] if s.digest not in stay]
    more += [s for samples in canaries.values() for s in samples]
    to_aux = round(len(more) * len(aux) / (len(aux) + len(test)))
    cells = {**kept, "aux_member": (*aux, *more[:to_aux]), "test_member": (*test, *more[to_aux:])}
    return Split(PROTOCOL, rehearsal.seed, cells)
