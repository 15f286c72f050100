"""The report page: nothing from outside, nothing unescaped, and the numbers of the input."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

import example_subjects
from smplora.core.errors import CheckpointError
from smplora.report.report import print_table, report, write_report
from smplora.results.subjects import collect

EXAMPLE = vars(example_subjects)
HOSTILE: str = EXAMPLE["HOSTILE"]
LOADING = {"script", "link", "iframe", "object", "embed", "base", "audio", "video", "image", "form"}


class Page(HTMLParser):
    """Collects what the tests ask about: tags, table cells and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.summary: list[list[str]] = []  # cells of the first table's body
        self.text = ""
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.tags.append((tag, found))
        if tag == "table":
            self._open = found.get("class", "")
        elif self._open == "summary" and tag == "tr":
            self.summary.append([])
        elif self._open == "summary" and tag in ("td", "th"):
            self.summary[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self._open = ""

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._open == "summary" and self.summary and self.summary[-1]:
            self.summary[-1][-1] = " ".join(f"{self.summary[-1][-1]} {data}".split())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], str]:
    folder = tmp_path_factory.mktemp("report")
    subjects = EXAMPLE["write_subjects"](folder)
    write_report(subjects, folder / "report.html")
    return subjects, (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def subjects(tmp_path: Path) -> list[Path]:
    made: list[Path] = EXAMPLE["write_subjects"](tmp_path)
    return made


def edit(path: Path, change: Callable[[Any], object]) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def test_page_asks_nobody_for_anything(written: tuple[list[Path], str]) -> None:
    page = Page(written[1])
    pictures = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) == 5 * len(EXAMPLE["CAPTIONS"])  # four measured subjects and the real images
    for tag, attrs in page.tags:
        assert tag not in LOADING, tag
        for name, value in attrs.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "srcset", "xlink:href", "action", "poster", "data"):
                assert value.startswith(("data:image/png;base64,", "#")), (tag, name, value[:80])
    assert "@import" not in written[1]
    assert not re.findall(r"url\((?!['\"]?#)", written[1])


def test_page_has_language_title_and_viewport(written: tuple[list[Path], str]) -> None:
    tags = Page(written[1]).tags
    assert ("html", {"lang": "en"}) in tags
    assert any(tag == "meta" and attrs.get("name") == "viewport" for tag, attrs in tags)
    assert "<title>Privacy report: LoRA and 4 more</title>" in written[1]
    assert all(attrs.get("aria-label") for tag, attrs in tags if tag == "svg" and attrs.get("role") == "img")


def test_hostile_label_and_caption_stay_text(written: tuple[list[Path], str]) -> None:
    page = Page(written[1])
    assert "<script" not in written[1]
    assert HOSTILE in page.text
    assert f"LoRA: {HOSTILE}" in [attrs.get("alt") for tag, attrs in page.tags if tag == "img"]


def test_summary_shows_the_numbers_of_the_input(written: tuple[list[Path], str]) -> None:
    rows = Page(written[1]).summary[1:]
    for folder, row in zip(written[0], rows, strict=True):
        audit = json.loads((folder / "audit" / "audit.json").read_text())
        attack = next(a for a in audit["attacks"] if a["name"] == audit["verdict"]["attack"])
        auc, aux, asr = attack["test"]["auc"], attack["aux_members"]["auc"], attack["test"]["asr"]
        word = {"red": "Leaks", "amber": "Unclear", "green": "No leak found"}[audit["verdict"]["level"]]
        assert row[0] == f"{audit['subject']['label']} {audit['verdict']['sentence']}"
        assert row[1] == word
        assert row[2] == f"{auc['value']:.2f} [{auc['low']:.2f}, {auc['high']:.2f}] {attack['title']}"
        assert row[3] == f"{aux['value']:.2f} [{aux['low']:.2f}, {aux['high']:.2f}]"
        assert row[4] == f"{100 * asr['value']:.0f} % [{100 * asr['low']:.0f}, {100 * asr['high']:.0f}]"
        if (folder / "quality").exists():
            held_out = json.loads((folder / "quality" / "quality.json").read_text())["against"]["held_out"]
            kid, fid = held_out["kid"], held_out["fid"]
            assert row[5] == f"{kid['value']:.4f} [{kid['low']:.4f}, {kid['high']:.4f}]"
            assert row[6] == f"{fid['value']:.1f} [{fid['low']:.1f}, {fid['high']:.1f}]"
        else:
            assert row[5:] == ["not measured", "not measured"]


def test_levels_differ_in_shape_and_not_in_colour_alone(written: tuple[list[Path], str]) -> None:
    shapes = dict(re.findall(r'<span class="level (\w+)"><svg class="shape"[^>]*>(.*?)</svg>', written[1]))
    assert len(shapes) == 3 == len(set(shapes.values()))


def test_every_attack_is_listed_with_resolvable_rates_and_the_optimistic_number(
    written: tuple[list[Path], str],
) -> None:
    text = " ".join(Page(written[1]).text.split())
    assert text.count("TPR at 0.1 % FPR: not resolvable (needs 5,000 non-members)") == 5  # once for each table
    assert text.count("ASR 61 % optimistic: checkpoint chosen on the test cells") == 5
    rate = json.loads((written[0][0] / "audit" / "audit.json").read_text())["attacks"][0]["test"]["tpr_at_fpr"]["0.1"]
    assert f"{100 * rate['value']:.0f} % [{100 * rate['low']:.0f}, {100 * rate['high']:.0f}]" in text
    assert "resolvable from 10 %" in text  # the mark in the ROC figure: five of fifty non-members


def test_ids_are_unique_and_references_resolve(written: tuple[list[Path], str]) -> None:
    tags = Page(written[1]).tags
    ids = Counter(attrs["id"] for _, attrs in tags if "id" in attrs)
    assert [name for name, times in ids.items() if times > 1] == []
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', written[1]))
    assert used
    assert used <= set(ids)
    assert (
        sum(attrs.get("role") == "img" for _, attrs in tags) == 13
    )  # KID, FID, groups, two ROC, three of training, five of exposure


def test_same_input_gives_the_same_bytes_and_leaves_nothing_else(subjects: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    write_report([*subjects, subjects[0]], output / "report.html")
    first = (output / "report.html").read_bytes()
    write_report(subjects, output / "report.html")
    assert (output / "report.html").read_bytes() == first
    assert [path.name for path in output.iterdir()] == ["report.html"]


def test_secrets_are_not_shown(written: tuple[list[Path], str]) -> None:
    assert "hub_token" in written[1]
    assert "hf_abcdef" not in written[1]


def test_citations_come_once_with_the_paper_first(written: tuple[list[Path], str]) -> None:
    entries = re.findall(r"<pre>(.*?)</pre>", written[1], flags=re.DOTALL)
    assert [entry.split("{")[1].split(",")[0] for entry in entries] == ["luo2025privacy", "yeom2018", "watson2022"]


def test_missing_audit_says_in_one_line_what_to_run(tmp_path: Path) -> None:
    folder = tmp_path / "my run"
    folder.mkdir()
    with pytest.raises(CheckpointError) as error:
        write_report([folder], tmp_path / "report.html")
    assert f"run `smplora audit --adapter '{folder}'`" in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("file", "change", "expected"),
    [
        ("audit/audit.json", lambda d: d.update(format="smplora.audit/9"), "smplora audit --adapter"),
        ("audit/audit.json", lambda d: d["attacks"][0].pop("test"), "smplora audit --adapter"),
        (
            "audit/audit.json",
            lambda d: d["attacks"][0]["test"]["auc"].update(value=float("nan")),
            "NaN is not a number",
        ),
        ("audit/audit.json", lambda d: d["verdict"].update(attack="unknown"), "there is no attack 'unknown' on test"),
        ("audit/audit.json", lambda d: d["strongest"].pop("aux_members"), "'strongest' has nothing on aux_members"),
        (
            "audit/audit.json",
            lambda d: d["verdict"].update(level="blue"),
            "level: Input should be 'invalid'",
        ),
        ("DONE.json", lambda d: d.update(adapter_sha256="0"), "about another adapter"),
        ("quality/quality.json", lambda d: d["subject"].update(adapter_sha256="0"), "another adapter than the audit"),
        ("quality/quality.json", lambda d: d["captions"].pop(), "smplora evaluate --adapter"),
    ],
)
def test_unusable_files_are_refused_in_one_line(
    subjects: list[Path], file: str, change: Callable[[Any], object], expected: str
) -> None:
    collect(subjects[:1])
    edit(subjects[0] / file, change)
    with pytest.raises(CheckpointError, match=re.escape(expected)) as error:
        collect(subjects[:1])
    assert "\n" not in str(error.value)


def test_half_a_line_of_metrics_is_forgiven_only_at_the_end(subjects: list[Path]) -> None:
    metrics = subjects[0] / "metrics.jsonl"
    assert not metrics.read_text().endswith("}\n")
    assert len(collect(subjects[:1])[0].run.curves["adaptation_loss"]) == 30
    metrics.write_text('{"step": 15\n' + metrics.read_text())
    with pytest.raises(CheckpointError, match=r"metrics.jsonl, line 1"):
        collect(subjects[:1])


def test_equal_labels_are_told_apart_by_folder(subjects: list[Path]) -> None:
    for folder in subjects[:2]:
        edit(folder / "audit" / "audit.json", lambda data: data["subject"].update(label="same"))
    assert [s.label for s in collect(subjects[:2])] == ["same (lora)", "same (lora/checkpoint-500)"]


def test_command_makes_the_folder_and_says_where_the_page_is(
    subjects: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "folder" / "page.html"
    report(
        SimpleNamespace(runs=[str(subject) for subject in subjects], output=str(output), shareable=False, json=False)
    )  # type: ignore[arg-type]
    assert output.read_text(encoding="utf-8").startswith("<!doctype html>")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.endswith(f"report: {output.resolve()}\n")


def test_terminal_table_shows_the_same_row(subjects: list[Path]) -> None:
    output = io.StringIO()
    console = Console(width=200, file=output)
    print_table(subjects, console)
    shown = " ".join(output.getvalue().replace("\N{NO-BREAK SPACE}", " ").split())
    for expected in ("SMP-LoRA", "No leak found", "0.91", "[0.89, 0.93]", "84 %", "0.0123", "not measured"):
        assert expected in shown


def test_the_shareable_page_shows_and_names_nothing(subjects: list[Path], tmp_path: Path) -> None:
    secret = "secret-folder"
    for folder in subjects[:1]:
        config = folder / "config.yaml"
        config.write_text(f"{config.read_text()}train_data_dir: /home/{secret}\nvalidation_prompt: {secret}\n")
        with config.open("a") as file:  # who has the images and the split's seed knows the members; a folder's name
            file.write("split_seed: 918273645\ncache_dir: '564738291'\n")
        strip = Image.new("RGB", (64, 32))
        strip.save(folder / "audit" / "exposed.png")
        images = [{"cell": "test_member", "beats": 1.0, "file": f"{secret}.png", "caption": secret}] * 2
        (folder / "audit" / "exposed.json").write_text(json.dumps({"attack": "loss", "images": images}))
    private, shared = tmp_path / "private.html", tmp_path / "shared.html"
    write_report(subjects, private)
    write_report(subjects, shared, shareable=True)
    page = Page(shared.read_text(encoding="utf-8"))
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert secret not in page.text
    assert "/home" not in page.text
    assert not [text for text in ("918273645", "564738291") if text in shared.read_text(encoding="utf-8")]
    assert not any(caption in page.text for caption in EXAMPLE["CAPTIONS"] if caption != HOSTILE)
    assert "Adapter 1 (LoRA)" in page.text
    assert "Adapter 4 (MP-LoRA)" in page.text  # its label was anybody's text
    assert "learning_rate" in page.text  # settings that are numbers stay
    whole = Page(private.read_text(encoding="utf-8"))
    assert "918273645" in whole.text
    assert "The most exposed training images" in whole.text
    assert len([a for t, a in whole.tags if t == "img" and a["alt"].startswith("Exposed training image")]) == 2


def test_gates_evidence_and_power_are_on_the_page(written: tuple[list[Path], str]) -> None:
    text = Page(written[1]).text
    assert "captions alone cannot tell" in text
    assert "2 near-duplicate pairs" in text
    assert "AUC 0.91 [0.89, 0.94] Loss calibrated by the base model; corrected p < 0.001" in text
    assert "1.20 of at most 2.57 with these cells" in text
    assert text.count("would have gone unseen") == 1
    assert "With these cells an AUC below 0.69 would have gone unseen in more than 20" in text


def test_an_invalid_audit_is_said_first(subjects: list[Path], tmp_path: Path) -> None:
    def spoil(audit: Any) -> None:
        audit["gates"]["checks"][0]["passed"] = False
        audit["verdict"] |= {"level": "invalid", "sentence": "Invalid audit: captions alone can tell."}

    edit(subjects[3] / "audit" / "audit.json", spoil)
    write_report(subjects, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert 'class="verdict invalid"' in page
    assert "Invalid audit: captions alone can tell." in Page(page).text


def test_what_a_budget_measured_is_drawn_for_each_run(subjects: list[Path], tmp_path: Path) -> None:
    """Leakage against the budget, quality, and what was steered; ids stay unique over runs."""
    runs = [s for s in subjects if (s / "metrics.jsonl").exists()][:2]
    for run, steered in zip(runs, ("mi_lambda", "images"), strict=True):
        looks = [
            {"step": 100 * k, "leakage": {"value": 0.5, "low": 0.4, "high": 0.5 + 0.02 * k}, "limit": 0.65,
             "held_out_loss": 1 / k, steered: k}
            for k in range(1, 6)
        ]  # fmt: skip
        (run / "budget.jsonl").write_text("".join(json.dumps(row) + "\n" for row in looks))
    for shareable in (False, True):
        write_report(subjects, tmp_path / "page.html", shareable)
        page = Page((tmp_path / "page.html").read_text())
        assert page.text.count(": its budget") == 2
        ids = [values["id"] for _, values in page.tags if "id" in values]
        assert len(set(ids)) == len(ids)
        assert all(word in " ".join(ids) for word in ("run0-budget-lambda", "run1-budget-images", "run1-budget-loss"))
