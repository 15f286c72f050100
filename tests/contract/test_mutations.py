"""Damaged and hostile files of every kind: used, or refused in a line; no traceback, no hang.

Two thousand mutations, the same ones in every run; ``benchmarks/mutations.py`` tries others.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from example_subjects import write_subjects
from mutations import Kind, attempt, kinds, mutated, mutated_tensors, try_one

MUTATIONS = 2000
GROUPS = 4  # so that several processes can share them


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory: pytest.TempPathFactory, trained_run: Path, image_folder: Path) -> list[Kind]:
    folder = tmp_path_factory.mktemp("kinds")
    subject = write_subjects(tmp_path_factory.mktemp("subjects"))[0]
    return list(kinds(folder, trained_run, image_folder, subject))


@pytest.mark.parametrize("group", range(GROUPS))
def test_changed_files_are_used_or_refused_in_a_line(every_kind: list[Kind], group: int) -> None:
    weighted = [kind for kind in every_kind[group::GROUPS] for _ in range(kind.weight)]
    originals = {kind.name: kind.path.read_bytes() for kind in weighted}
    tried = refused = 0

    @settings(max_examples=MUTATIONS // GROUPS, deadline=None, derandomize=True, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.data())
    def try_them(data: st.DataObject) -> None:
        nonlocal tried, refused
        kind = data.draw(st.sampled_from(weighted))
        original = originals[kind.name]
        content = data.draw((mutated_tensors if kind.path.suffix == ".safetensors" else mutated)(original))
        tried += 1
        refused += try_one(kind, content) is not None

    try_them()
    assert tried >= MUTATIONS // GROUPS
    assert refused > tried // 3, "most changes must be noticed, else nothing is tried"


def test_unchanged_files_are_used(every_kind: list[Kind]) -> None:
    assert {kind.name: attempt(kind.read) for kind in every_kind} == {kind.name: None for kind in every_kind}
