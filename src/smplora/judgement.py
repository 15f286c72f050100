"""From attacks' signals on the cells to what an audit says: numbers on both groups of members, and the verdict. Pure.

Whatever is fitted is fitted on aux: scalers, signs, classifiers, thresholds (the last from out-of-fold scores). The
test cells are scored once. Aux members are judged too, out of fold: they are private images like the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from smplora.contracts import Attack, Bools, Floats
from smplora.metrics import summary
from smplora.scorers import Judged, judge
from smplora.verdict import verdict


@dataclass(frozen=True)
class Tried:
    """One attack: what a reader must know of it, and its scores on both groups."""

    about: dict[str, Any]
    judged: Judged
    paper_protocol: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """As in ``--attacks``."""
        return str(self.about["name"])


def labels(sizes: Mapping[str, int], kind: str) -> Bools:
    """Members first: [n] bool for ``kind`` "aux" or "test"."""
    return np.arange(sizes[f"{kind}_member"] + sizes[f"{kind}_nonmember"]) < sizes[f"{kind}_member"]


def try_attacks(
    attacks: Mapping[str, Attack], signals: Mapping[tuple[str, str], Floats], sizes: Mapping[str, int], seed: int
) -> list[Tried]:
    """Fit every attack on aux and score both groups.

    Args:
        signals: {(attack, cell): [n, ...]}.
        sizes: images per cell.
        seed: of folds and classifiers.
    """
    aux_member, test_member = (labels(sizes, kind) for kind in ("aux", "test"))
    tried = []
    for name, attack in attacks.items():
        aux, test = (
            np.concatenate([signals[name, f"{kind}_member"], signals[name, f"{kind}_nonmember"]])
            for kind in ("aux", "test")
        )
        about = {
            "name": name,
            "title": attack.info.title,
            "access": attack.info.access.value,
            "reference": attack.info.reference,
            "bibtex": attack.info.bibtex,
            "fitted_on": "aux",
        }
        judged = judge(attack, aux, aux_member, test, seed)
        tried.append(Tried(about, judged, attack.paper_protocol(aux, aux_member, test, test_member, seed)))
    return tried


def conclude(tried: Sequence[Tried], aux_member: Bools, test_member: Bools) -> dict[str, Any]:
    """The "attacks" and "verdict" of audit.json (docs/formats.md)."""
    results = [
        {
            **one.about,
            "test": summary(one.judged.test, test_member, one.judged.test >= one.judged.threshold),
            "aux_members": summary(one.judged.aux.scores, aux_member, one.judged.aux.decisions),
            "paper_protocol": one.paper_protocol,
        }
        for one in tried
    ]
    return {"attacks": results, "verdict": verdict(results)}


def score_arrays(tried: Sequence[Tried], aux_member: Bools, test_member: Bools) -> dict[str, Any]:
    """The arrays of scores.npz: both groups' labels and every attack's scores."""
    arrays: dict[str, Any] = {"aux_member": aux_member, "test_member": test_member}
    for one in tried:
        arrays |= {f"{one.name}/test": one.judged.test, f"{one.name}/aux_out_of_fold": one.judged.aux.scores}
    return arrays
