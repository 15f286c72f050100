"""Files that version 0.1 wrote still open: a run of its quickstart, with two of the attacks."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from smplora.audit.audit import FORMAT as AUDIT
from smplora.config.train import TrainConfig
from smplora.quality.evaluate import FORMAT as QUALITY
from smplora.report.report import write_report
from smplora.results.audit import UNCROSSED, Audit
from smplora.results.quality import Quality
from smplora.results.record import as_json, read
from smplora.results.run import BaseModel, CheckpointState, Done
from smplora.runs.folder import check_settings, read_config

RUN = Path(__file__).parent / "version_0_1"


@pytest.mark.parametrize(
    ("file", "kind", "of_format"),
    [
        ("audit/audit.json", Audit, (AUDIT, UNCROSSED)),
        ("quality/quality.json", Quality, (QUALITY,)),
        ("DONE.json", Done, ()),
        ("model.json", BaseModel, ()),
        ("state.json", CheckpointState, ()),
    ],
)
def test_a_file_is_read_whole(file: str, kind: Any, of_format: tuple[str, ...]) -> None:
    """Nothing of it is lost: what is written back is what was there, to the last digit."""
    again = as_json(read(RUN / file, kind, "run it", *of_format))
    assert json.dumps(again) == json.dumps(json.loads((RUN / file).read_text()))


def test_its_options_are_those_of_today() -> None:
    config = read_config(RUN, TrainConfig)
    assert asdict(config) == {**asdict(TrainConfig()), **yaml.safe_load((RUN / "config.yaml").read_text())}
    check_settings(RUN, config)


def test_it_has_a_page(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(RUN, run)
    write_report([run], tmp_path / "report.html")
    strongest = json.loads((RUN / "audit" / "audit.json").read_text())["strongest"]["test"]
    page = (tmp_path / "report.html").read_text()
    assert f"{strongest['auc']['value']:.2f}" in page
    assert "audited by an earlier version, whose numbers on aux members were too sure" in page
