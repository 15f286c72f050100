"""The report page in a real browser without network: it is laid out, fits a phone, runs nothing, asks for nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import example_subjects
from smplora.report.report import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
EXAMPLE = vars(example_subjects)
PHONE, DESKTOP = 390, 1280

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")

# Runs inside a copy of the page and tells the page around it what the browser made of it.
PROBE = """<script>
addEventListener("load", () => {
  const root = document.documentElement;
  const sticking = [...document.querySelectorAll("body *")].filter(e =>
    !e.closest(".box, svg") && e.getBoundingClientRect().right > root.clientWidth + 1);
  const images = [...document.images];
  parent.postMessage(JSON.stringify({
    viewport: innerWidth, scroll: root.scrollWidth, sticking: sticking.map(e => e.outerHTML.slice(0, 80)),
    scripts: document.scripts.length, loaded: performance.getEntriesByType("resource").map(e => e.name.slice(0, 40)),
    pictures: images.filter(i => i.complete && i.naturalWidth > 0).length,
    figures: [...document.querySelectorAll("figure svg")].map(e => Math.round(e.getBoundingClientRect().height)),
    boxes: [...document.querySelectorAll(".box")].filter(e => e.scrollWidth > e.clientWidth).length,
    smallest: Math.min(...[...document.querySelectorAll("figure svg")].map(e => 11 * e.getScreenCTM().a)),
  }), "*");
});
</script>"""
# Chromium's own window is never narrower than 500 pixels, a frame is as narrow as it is told.
FRAME = """<!doctype html><iframe src="probed.html" style="width:{width}px;height:900px;border:0"></iframe>
<script>addEventListener("message", e => {{ document.title = e.data; }});</script>"""


def look(page: str, folder: Path, width: int) -> dict[str, Any]:
    """What the browser says about ``page`` when it is ``width`` pixels wide."""
    (folder / "probed.html").write_text(page.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    (folder / "frame.html").write_text(FRAME.format(width=width), encoding="utf-8")
    command = [
        CHROMIUM or "", "--headless", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder}/profile",
        f"--window-size={width + 40},1000", "--virtual-time-budget=5000", "--dump-dom",
        *(["--no-sandbox"] if os.geteuid() == 0 else []), (folder / "frame.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    title = re.search(r"<title>(.*?)</title>", done.stdout, flags=re.DOTALL)
    assert title, done.stderr[-2000:]
    report: dict[str, Any] = json.loads(title.group(1).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    return report


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("page")
    write_report(EXAMPLE["write_subjects"](folder), folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_page_fits_the_window_and_loads_nothing(page: str, tmp_path: Path, width: int) -> None:
    seen = look(page, tmp_path, width)
    assert seen["viewport"] == width
    assert seen["scroll"] <= width, seen["sticking"]
    assert seen["sticking"] == []
    assert seen["scripts"] == 1  # the probe itself: the hostile label and caption ran nowhere
    assert [name for name in seen["loaded"] if not name.startswith("data:")] == []
    assert seen["pictures"] == 5 * len(EXAMPLE["CAPTIONS"])
    assert len(seen["figures"]) == 13
    assert min(seen["figures"]) > 150
    assert seen["smallest"] >= 8.5  # pixels of the smallest text in a figure
    assert (seen["boxes"] > 0) == (width == PHONE)  # wide tables scroll inside their own box, on a phone only


def test_the_probe_notices_a_page_that_is_too_wide(page: str, tmp_path: Path) -> None:
    wide = page.replace("</main>", '<p style="width: 900px; max-width: none">wide</p></main>')
    seen = look(wide, tmp_path, PHONE)
    assert seen["scroll"] > PHONE
    assert any("wide" in element for element in seen["sticking"])
