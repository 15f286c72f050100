"""The split of a final training: every image that the rehearsal's split held back is trained on too."""

from __future__ import annotations

from collections.abc import Sequence

from smplora.data.split import Split
from smplora.results.manifest import CELLS

PROTOCOL = "final"


def final_split(rehearsal: Split, kept_out: Sequence[str]) -> Split:
    """All images but those of the cells ``kept_out``. The aux members stay who they are, all others are test members;
    canaries are images like any other.
    """
    canaries = rehearsal.canaries.cells if rehearsal.canaries else {}
    more = [s for cell in CELLS if cell not in ("aux_member", *kept_out) for s in rehearsal.cells[cell]]
    more += [s for samples in canaries.values() for s in samples]
    cells = {cell: rehearsal.cells[cell] if cell in kept_out else () for cell in CELLS}
    cells |= {"aux_member": rehearsal.cells["aux_member"], "test_member": tuple(more)}
    return Split(PROTOCOL, rehearsal.seed, cells)
