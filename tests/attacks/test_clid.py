"""CLiD's choices against the authors' code."""

from __future__ import annotations

import numpy as np
import pytest

from smplora.attacks.methods.clid import BOOSTING, TIMESTEPS, MixedThreshold, reduced
from smplora.core.arrays import Floats

LEAK = np.array([-0.2, 0.1, 0.1, 0.1, 0.1])


def rows(n: int, start: int) -> Floats:
    """Loss and four differences of each of n images, as the authors write them down; without a generator."""
    i = np.arange(start, start + 5 * n)
    return ((i * i * 7919 + i * 104729) % 1009 / 1009).reshape(n, 5)


def ours(table: Floats) -> Floats:
    """Differences first, then minus the loss."""
    return np.column_stack([table[:, 1:], -table[:, 0]])


def test_the_threshold_attack_weighs_and_scales_as_the_authors_code() -> None:
    """Golden: the loop over alpha of cal_clid_th.py (zhaisf/CLiD at 4a04008; get_l_clidavg_last3, RobustScaler,
    deal_data_weight_avg, get_th) on these tables in place of its four files, the first two those of the shadow model.
    It chose alpha = 0.4; its scores are low for members.
    """
    members, others = rows(10, 100) + LEAK, rows(10, 150)
    target = np.concatenate([rows(4, 200) + LEAK, rows(4, 220)])
    scorer = MixedThreshold().fit(ours(np.concatenate([members, others])), np.arange(20) < 10)
    assert scorer.alpha == pytest.approx(0.4)
    expected = [-0.21273, -0.6981, -0.3823, -0.58745, 0.57657, -0.10729, 0.76895, 0.92851]
    np.testing.assert_allclose(-scorer.score(ours(target)), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("caption", "parts"),
    [
        ("abcdefghi", ["abc", "def", "ghi", ""]),
        ("a red fish", ["a r", "ed ", "fish", ""]),  # letters, not words; what is left over joins the last
        ("ab", ["", "a", "b", ""]),
        ("", ["", "", "", ""]),
    ],
)
def test_captions_are_cut_as_in_mia_clid_clip(caption: str, parts: list[str]) -> None:
    assert reduced(caption) == parts
    assert "".join(reduced(caption)) == caption


def test_constants_are_those_of_paper_and_code() -> None:
    """Appendix D.1; the call of get_xgb in cal_clid_xgb.py."""
    assert TIMESTEPS == (440, 450, 460)
    assert BOOSTING == {
        "n_estimators": 20, "gamma": 0.7, "max_depth": 3, "subsample": 0.7, "colsample_bytree": 0.7,
        "reg_alpha": 1, "reg_lambda": 1,
    }  # fmt: skip
