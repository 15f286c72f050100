"""Tasks over processes: in order, failures kept apart, killed workers replaced, nothing done twice."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures.process import _ExecutorManagerThread
from multiprocessing import active_children, get_context
from pathlib import Path

import pytest

from smplora.config.audit import AuditConfig
from smplora.config.evaluate import EvaluateConfig
from smplora.config.train import TrainConfig
from smplora.core.parallel import ATTEMPTS, KILLED, Task, TaskQueue, Work, run_tasks
from smplora.experiments.tasks import task
from smplora.runs.folder import RunFolder


@pytest.fixture(autouse=True)
def real_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not forked from the tests, as elsewhere."""
    monkeypatch.setattr("smplora.core.parallel.get_context", get_context)


def training(images: Path, folder: Path, **options: object) -> TrainConfig:
    small = {"aux_size": 8, "rank": 2, "max_train_steps": 6, "logging_steps": 2, "checkpointing_steps": 2}
    return TrainConfig(train_data_dir=str(images), output_dir=str(folder), **{**small, **options})  # type: ignore[arg-type]


def kill_a_worker_in(folder: Path) -> None:
    """Once its run has a checkpoint."""
    while not RunFolder(folder).steps():
        time.sleep(0.02)
    os.kill(active_children()[0].pid or 0, signal.SIGKILL)


def test_a_killed_worker_and_a_failure_stop_nobody_else(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    audit = AuditConfig(adapter=str(good), noise_pairs=1, num_timesteps=2, attacks=["loss"])
    quality = EvaluateConfig(adapter=str(bad))
    tasks = [
        task("good", training(image_folder, good, max_train_steps=20)),
        task("bad", training(image_folder / "absent", bad)),
        task("audit", audit, after="good"),
        task("quality", quality, after="bad"),
    ]
    killer = threading.Thread(target=kill_a_worker_in, args=(good,), daemon=True)
    killer.start()
    outcome = run_tasks(tasks, "test", workers=1)
    killer.join()
    assert [name for name, problem in outcome.items() if problem is None] == ["good", "audit"]
    assert "absent" in str(outcome["bad"])
    assert outcome["quality"] == "bad failed"
    assert [task.done for task in tasks] == [True, False, True, False]
    other = AuditConfig(adapter=str(good), noise_pairs=2, num_timesteps=2, attacks=["loss"])
    assert not task("", other).done, "other settings are another audit"

    assert run_tasks([tasks[0], tasks[2]], "again", workers=1) == {"good": None, "audit": None}
    assert not task("", training(image_folder, good, max_train_steps=50)).done


@pytest.mark.parametrize("times", [1, 9])
def test_no_memory_for_a_thread_of_the_pool(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker does would never be heard of."""
    queueing = _ExecutorManagerThread.add_call_item_to_queue
    left = [None] * times

    def fails(self: _ExecutorManagerThread) -> None:
        if left:
            left.pop()
            raise RuntimeError("can't start new thread")
        queueing(self)

    monkeypatch.setattr(_ExecutorManagerThread, "add_call_item_to_queue", fails)
    hook = threading.excepthook
    outcome = run_tasks([Task("one", None, Work(str, bool))], "test", workers=1)
    assert outcome == {"one": None if times < ATTEMPTS else KILLED}
    assert threading.excepthook is hook
    assert not active_children()


def test_names_are_distinct_and_in_order(image_folder: Path, tmp_path: Path) -> None:
    one = task("one", training(image_folder, tmp_path))
    for tasks in ([one, one], [task("two", one.options, after="one"), one]):
        with pytest.raises(ValueError, match="task"):
            run_tasks(tasks, "test")


def test_a_free_worker_takes_the_first_task_that_can_be_done(image_folder: Path, tmp_path: Path) -> None:
    tasks = [task(name, training(image_folder, tmp_path / name)) for name in ("one", "two", "three")]
    tasks.insert(1, task("after one", AuditConfig(adapter="one"), after="one"))
    tasks.append(task("after that", AuditConfig(adapter="one"), after="after one"))
    queue = TaskQueue(tasks, strict=False)
    assert [t.name for t in queue.ready(2)] == ["one", "two"]
    assert queue.ready(0) == []
    queue.outcome["one"] = None
    assert [t.name for t in queue.ready(1)] == ["after one"], "before what was named later"
    queue.outcome["after one"] = "no"
    assert [t.name for t in queue.ready(5)] == ["three"]
    assert queue.outcome["after that"] == "after one failed"
    assert not queue.waiting
