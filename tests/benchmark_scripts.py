"""Scripts of benchmarks/ as tests start them: small, in this process, on few images."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from small_networks import draw_little, learn_little
from smplora.config.catalogue.attacks import ATTACKS
from smplora.core.parallel import Task
from smplora.core.reading import read_json
from smplora.data.digits import PRIVATE_DIGITS, caption, digit_images

REPOSITORY = Path(__file__).parents[1]
BENCHMARKS = REPOSITORY / "benchmarks"
SCRIPTS = REPOSITORY / "scripts"
NAMES = sorted(path.stem for path in BENCHMARKS.glob("*.py") if "__main__" in path.read_text())
IMAGES = 90  # with cells of 5, enough are held out for FID
TRAIN = {
    "aux_size": 8, "test_size": 8, "reference_size": 16, "rank": 1, "lora_targets": "attention", "train_batch_size": 2,
    "max_train_steps": 2, "checkpointing_steps": 2, "monitor_steps": 0, "validation_steps": 0, "run_page": False,
}  # fmt: skip
AUDIT = {"num_timesteps": 1, "noise_pairs": 1, "attacks": ["loss", "calibrated_loss"]}
EVALUATE = {"num_images": 20, "num_inference_steps": 1, "batch_size": 100}


def in_this_process(tasks: Sequence[Task], title: str, **_: Any) -> dict[str, str | None]:
    """``run_tasks`` without processes, each of which would import PyTorch."""
    for task in tasks:
        if not task.done:
            task.work.run(task.options)
    return dict.fromkeys(task.name for task in tasks)


@pytest.fixture(scope="module", autouse=True)
def few_images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The scripts find each other, and few images in place of all digits. What is in the repository stays as it is."""
    folder = tmp_path_factory.mktemp("images")
    rows = []
    for number, (picture, label) in enumerate(list(zip(*digit_images(PRIVATE_DIGITS), strict=True))[:IMAGES]):
        picture.save(folder / f"{number}.png")
        rows.append(json.dumps({"file_name": f"{number}.png", "text": caption(label)}))
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    kept = [path for place in (BENCHMARKS / "results", REPOSITORY / "docs") for path in place.rglob("*.*")]
    before = {path: path.stat().st_mtime_ns for path in kept}
    with pytest.MonkeyPatch.context() as patch:
        learn_little(patch)
        draw_little(patch)
        patch.syspath_prepend(str(BENCHMARKS))
        patch.setattr("smplora.data.digits.write_private_digits", lambda _: folder)
        patch.setattr("smplora.core.parallel.run_tasks", in_this_process)
        patch.setattr("smplora.audit.shadow_adapters.run_tasks", in_this_process)
        yield
        sys.modules.pop("common", None)
    assert before == {path: path.stat().st_mtime_ns for path in kept}


def load(script: str, folder: Path = BENCHMARKS) -> Any:
    """A script as a module, under a name that nothing else has."""
    spec = spec_from_file_location(f"{folder.name}_{script}", folder / f"{script}.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(script: str, results: Path, *words: object, wrote: str | None = None, **replaced: Any) -> Any:
    """What a script writes, called with ``words``; dictionaries among them as YAML. ``replaced``: names in it."""
    given = [json.dumps(word) if isinstance(word, dict) else str(word) for word in words]
    module = load(script)
    vars(module).update(replaced)
    module.main([*given, "--results", str(results)])
    return read_json(results / f"{wrote or script}.json")


def lacking(found: Any, before: Any, where: str = "") -> list[str]:
    """The keys of ``before`` that ``found`` has not, but attacks; of lists the first elements are compared."""
    if isinstance(before, list) and before and found:
        return lacking(found[0], before[0], f"{where}[0]")
    if not isinstance(before, dict) or found is None:
        return []
    missing = [f"{where}.{key}" for key in before if key not in found and key not in ATTACKS]
    return missing + [k for key in before if key in found for k in lacking(found[key], before[key], f"{where}.{key}")]


def written(name: str) -> Any:
    """The results file of that name."""
    return read_json(BENCHMARKS / "results" / f"{name}.json")
