"""Curves read from files of JSON lines."""

from __future__ import annotations

import pytest

from smplora.results.curves import seconds_per_step


def test_time_is_that_of_the_run_resumed_or_not() -> None:
    lines = [(10, 2.0), (20, 4.0), (30, 2.5)]
    assert seconds_per_step(lines) == pytest.approx(0.2)
    assert seconds_per_step([*lines, (40, 4.5)]) == pytest.approx(0.2)
    assert seconds_per_step([(10, 5.0), (20, 1.0)]) is None
    assert seconds_per_step([]) is None
