"""What the guide says of each attack."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from smplora.config.catalogue.attacks import ATTACKS, SHADOW
from smplora.core.registry import load

GUIDE = (Path(__file__).parents[2] / "docs" / "auditing.md").read_text()
SECTION = GUIDE.split("### Which attacks are as published")[1].split("\n## ")[0]
FORMS = [
    (name, form)
    for names, form in re.findall(r"^\| (`[^|]*) \| (.*) \|$", SECTION, re.MULTILINE)
    for name in re.findall(r"`([^`]*)`", names)
]


def test_every_attack_is_said_once_to_be_published_a_variant_a_control_or_ours() -> None:
    assert Counter(name for name, _ in FORMS) == Counter(list(ATTACKS))
    assert all(form.startswith(("published", "variant", "controls", "ours")) for _, form in FORMS)


def test_what_calls_itself_a_variant_is_called_one_by_the_guide() -> None:
    classes = {name: load(ATTACKS, name, "attacks") for name in ATTACKS}
    infos = {name: one.about if name in SHADOW else one.info for name, one in classes.items()}
    called = [name for name, info in infos.items() if "variant" in info.title]
    assert called
    assert all(form.startswith("variant") for name, form in FORMS if name in called)
