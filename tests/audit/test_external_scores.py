"""Audits of ready scores: the real command, the Python interface, and everything that is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from smplora.audit.external_scores import audit_scores, read_signals
from smplora.cli.main import main
from smplora.core.errors import DataError


def sample(seed: int = 0, members: int = 60, others: int = 50) -> tuple[dict[str, Any], Any]:
    """Three scores in shuffled order: good, the same reversed, useless."""
    rng = np.random.default_rng(seed)
    member = rng.permutation(np.arange(members + others) < members)
    good = rng.normal(size=member.size) + 1.5 * member
    return {"good": good, "reversed": -good, "noise": rng.normal(size=member.size)}, member


def write(path: Path, columns: dict[str, Any]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def test_command_writes_audit_and_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores, member = sample()
    path = write(tmp_path / "scores.csv", {"member": member.astype(int), **scores})
    assert main(["audit", "--signals", str(path), "--output_dir", str(tmp_path / "out"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    content = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert content == printed
    assert content["split"]["cells"] == {"aux_member": 30, "test_member": 30, "aux_nonmember": 25, "test_nonmember": 25}
    assert content["verdict"]["level"] == "red"
    attacks = {attack["name"]: attack for attack in content["attacks"]}
    for name, attack in attacks.items():  # the plain AUC of each score, on all rows, as given
        assert attack["all_rows"]["auc"]["value"] == pytest.approx(roc_auc_score(member, scores[name]))
        assert attack["all_rows"]["n"] == 110
    for group in ("test", "aux_members"):
        assert (attacks["good"][group]["sign"], attacks["reversed"][group]["sign"]) == (1, -1)
    good, mirrored = attacks["good"]["test"], attacks["reversed"]["test"]
    for number in ("auc", "asr", "tpr_at_fpr"):
        assert good[number] == mirrored[number]
    assert good["p_value"] == mirrored["p_value"]
    assert "scores.csv" in (tmp_path / "out" / "report.html").read_text()
    assert main(["report", "--runs", f"[{tmp_path / 'out'}]", "--output", str(tmp_path / "page.html")]) == 0
    assert audit_scores(scores, member)["attacks"] == content["attacks"]


def test_the_given_cells_are_used_and_each_half_is_read_as_the_other_says() -> None:
    scores, member = sample()
    cell = np.where(np.arange(member.size) % 3 == 0, "aux", "test")
    content = audit_scores(scores, member, cell)
    test = content["strongest"]["test"]
    noise = content["attacks"][2]["test"]["sign"]
    assert test["auc"]["value"] == pytest.approx(roc_auc_score(member[cell == "test"], scores["good"][cell == "test"]))
    shuffled = member.copy()
    shuffled[cell == "test"] = np.random.default_rng(1).permutation(member[cell == "test"])
    again = audit_scores(scores, shuffled, cell)
    for choice in ("attack", "sign"):  # for test, on aux; what is read on aux is chosen on test
        assert again["strongest"]["test"][choice] == test[choice]
    assert {a["name"]: a["test"]["sign"] for a in again["attacks"]} == {"good": 1, "reversed": -1, "noise": noise}


def test_useless_scores_give_no_leak() -> None:
    levels = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        content = audit_scores({f"s{k}": rng.normal(size=800) for k in range(3)}, np.arange(800) % 2)
        levels.append(content["verdict"]["level"])
    assert "red" not in levels
    assert levels.count("green") >= 3


def test_rows_that_are_there_twice_are_said() -> None:
    """They double the evidence of nothing: the p of a score that knows nothing falls below 0.05 too often."""
    scores, member = sample()
    assert not [note for note in audit_scores(scores, member)["gates"]["notes"] if "equal another" in note]
    twice = audit_scores({name: np.tile(one, 2) for name, one in scores.items()}, np.tile(member, 2))
    assert any(note.startswith("110 of 220 rows equal another one in label") for note in twice["gates"]["notes"])
    coarse = audit_scores({"s": np.tile([0, 1, 2, 3], 20)}, np.arange(80) % 8 < 4)
    assert not [note for note in coarse["gates"]["notes"] if "equal another" in note]


def test_coins_give_the_one_run_bound(tmp_path: Path) -> None:
    scores, member = sample()
    assert audit_scores(scores, member)["epsilon"]["one_run"] is None
    assert audit_scores(scores, member, coin=True)["epsilon"]["one_run"]["value"] > 0
    path = write(tmp_path / "s.csv", {"member": member.astype(int), "s": scores["good"]})
    command = ["audit", "--signals", str(path), "--output_dir", str(tmp_path / "o"), "--coin_flip"]
    assert main(command) == 0
    assert json.loads((tmp_path / "o" / "audit.json").read_text())["epsilon"]["one_run"]["value"] > 0


def test_a_table_from_a_spreadsheet_is_read(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_bytes("\ufeffmember, score\r\n1, 0.5\r\n0, 1e-3\r\n\r\n1, 2\r\n".encode())
    table = read_signals(path)
    assert table.scores["score"].tolist() == [0.5, 0.001, 2.0]
    assert table.is_member.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows"),
        ("member,score\n", "has no rows"),
        ("label,score\n1,2\n", "no column 'member' (1: member, 0: non-member); columns: label, score"),
        ("member,cell\n1,aux\n", "no score column"),
        ("member,s,s\n1,2,3\n", "the column 's' is there twice"),
        ("member,s,t\n1,2,1\n0,2,3\n", "score 's' is 2 in every row: it ranks nothing; leave it out or mend it"),
        ("member,s\n1,2\n0\n", "line 3: 1 field, and the header has 2"),
        ("member,s\n1,2\n0,x\n", "column 's' has 'x' in line 3; allowed: numbers"),
        ("member,s\n1,2\n0,1_0\n", "column 's' has '1_0' in line 3"),
        ("member;s\n1;0,5\n0;1\n", "column 's' has '0,5' in line 2"),
        ("member,s\n1,2\n0,\n", "column 's' has nothing in line 3"),
        ("member,s\n1,2\n0,nan\n", "score 's' is NaN, infinite or beyond 1e+100 in 1 of 2 rows, first in data row 2"),
        ("member,s\n1,2\n0,-inf\n", "NaN, infinite or"),
        ("member,s\n1,2\n0,1e308\n", "beyond 1e+100"),
        ('member,s\n1,"2\n0,1\n', "line 2: a quote that is not closed"),
        ("member,s\n2,2\n0,1\n", "'member' must hold 0 and 1 only"),
        ("member,s\nyes,2\n0,1\n", "column 'member' has 'yes' in line 2"),
        ("member,s\n1,2\n1,1\n", "'member' is 1 in every row"),
        ("member,s\n0,2\n0,1\n", "'member' is 0 in every row"),
        ("member,s,cell\n1,2,aux\n0,1,train\n", "'cell' has 'train'; allowed: aux, test"),
        ("member,s\n1,2\n1,3\n0,1\n0,0\n", "cells are too small (1 aux_member, 1 test_member"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
    path = tmp_path / "s.csv"
    path.write_text(text)
    assert main(["audit", "--signals", str(path), "--output_dir", str(tmp_path / "out")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("smplora: ")
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "out").exists()


def test_bad_options_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--signals", str(tmp_path / "none.csv"), "--adapter", "x", "--attacks", "[loss]"]) == 2
    err = capsys.readouterr().err
    assert "none.csv', which is not a file" in err
    assert "--adapter, --attacks: not with --signals, where no adapter is attacked; leave out" in err
    assert "--output_dir is missing" in err


@pytest.mark.parametrize(
    ("scores", "member", "cell", "message"),
    [
        ({}, [0, 1], None, "no scores"),
        ({"s": [1.0, 2.0, 3.0]}, [0, 1], None, "shape"),
        ({"s": ["a", "b"]}, [0, 1], None, "does not hold numbers"),
        ({"s": [1.0, 2.0]}, [[0, 1]], None, "'member' must hold"),
        ({"s": [1.0, 2.0]}, [0, 1], ["aux"], "'cell' has shape"),
    ],
)
def test_bad_arrays_are_refused(scores: Any, member: Any, cell: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        audit_scores(scores, member, cell)
