"""Work over worker processes: what the quickstart, sweeps, reproductions and shadow adapters are made of. Whatever was
done before is not done again, and a killed call goes on where it was."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from typing import Any

import torch

from smplora.core import offline
from smplora.core.console import bar, leave_saying_to_the_parent
from smplora.core.device import choose_device
from smplora.core.errors import TrainingError, UserError, readable

MOST_WORKERS = 3
MEASURING = 200  # an audit or an evaluation, in training steps: what the progress bar counts
ATTEMPTS = 3  # of a task whose worker was killed, or another one of the same pool
KILLED = "a worker process was killed, perhaps for lack of memory; run the same command with --workers 1"


def _measuring(options: Any) -> int:
    return MEASURING


def _none_yet(options: Any) -> int:
    return 0


@dataclass(frozen=True)
class Work:
    """A kind of work, as functions of its options. They stand in a module: workers find them by name."""

    run: Callable[..., str | None]  # does it, all but what was done before; returns what to tell people
    done: Callable[[Any], bool]  # whether nothing is left to do
    length: Callable[[Any], int] = _measuring  # how much it is, in training steps
    progress: Callable[[Any], int] = _none_yet  # how many of them are behind it


@dataclass(frozen=True)
class Task:
    """One piece of work. ``name`` is what messages call it; ``after`` names the task that must succeed first."""

    name: str
    options: Any
    work: Work
    after: str | None = None

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.work.done(self.options)

    @property
    def length(self) -> int:
        """How much it is, in training steps."""
        return self.work.length(self.options)

    @property
    def progress(self) -> int:
        """How many of them are behind it."""
        return self.work.progress(self.options)


def run_tasks(
    tasks: Sequence[Task], title: str, *, workers: int | None = None, device: str = "auto", strict: bool = False
) -> dict[str, str | None]:
    """Do every task. A free worker takes the first one, in the order given, that waits for nothing more.

    Args:
        tasks: with distinct names; a task stands behind the one that it waits for.
        title: of the progress bar, which counts training steps.
        workers: processes side by side. Default: one per processor core, at most 3; 1 on a GPU.
        device: that of the tasks, to choose ``workers``.
        strict: the first task that fails ends all, with its error.

    Returns:
        {name: None where it was done, else what went wrong in one line}. One failure does not stop the others, but
        those that wait for it. A worker that is killed is replaced, and what it did is tried once more.

    Raises:
        UserError: with ``strict``, the first one.
        ValueError: names that are not distinct, or a task that stands before the one that it waits for.
    """
    known: set[str] = set()
    for task in tasks:
        if task.name in known or (task.after and task.after not in known):
            raise ValueError(
                f"task {task.name!r}: named twice, or waits for {task.after!r}, which does not stand before"
            )
        known.add(task.name)
    queue = TaskQueue([t for t in tasks if not t.done], strict)
    queue.outcome |= {t.name: None for t in tasks if t not in queue.waiting}
    if not queue.waiting:
        return queue.outcome
    with bar(sum(queue.units.values()), title, unit="step") as display:
        while queue.waiting:
            with pool(workers, device, {task.work.run.__module__ for task in queue.waiting}) as submit:
                pending: dict[Future[str | None], Task] = {}
                broken = False
                while not broken and (queue.waiting or pending):
                    free = number_of_workers(workers, device) - len(pending)
                    pending |= {submit(task.work.run, task.options): task for task in queue.ready(free)}
                    finished, _ = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                    for future in finished:
                        broken |= queue.receive(pending.pop(future), future, display)
                    queue.show(pending.values(), display)
                queue.waiting[:0] = pending.values()  # a pool that breaks takes all its tasks with it
    return queue.outcome


class TaskQueue:
    """What is to do, what was done, and what went wrong."""

    def __init__(self, waiting: list[Task], strict: bool) -> None:
        self.waiting, self.strict = waiting, strict
        self.outcome: dict[str, str | None] = {}
        self.attempts = dict.fromkeys((t.name for t in waiting), 0)
        self.units = {t.name: t.length for t in waiting}

    def ready(self, most: int) -> list[Task]:
        """Take the first tasks that wait for nothing more; those that wait for a failed one have failed."""
        for task in self.waiting:
            if task.after and self.outcome.get(task.after) is not None:
                self.outcome[task.name] = f"{task.after} failed"
        self.waiting = [t for t in self.waiting if t.name not in self.outcome]
        ready = [t for t in self.waiting if t.after is None or t.after in self.outcome][:most]
        self.waiting = [t for t in self.waiting if t not in ready]
        return ready

    def receive(self, task: Task, future: Future[str | None], display: Any) -> bool:
        """Note how a task ended; returns whether its worker was killed."""
        error = future.exception()
        killed = isinstance(error, BrokenProcessPool)
        if killed:
            self.attempts[task.name] += 1
            if self.attempts[task.name] < ATTEMPTS and not self.strict:
                self.waiting.insert(0, task)
                return True
            error = TrainingError(KILLED)
        if error is not None and (self.strict or not isinstance(error, Exception)):
            raise error
        self.outcome[task.name] = problem(error)
        sentence = f"{task.name}: {self.outcome[task.name]}" if error else future.result()
        if sentence:
            display.write(readable(sentence), file=display.fp)
        if error and not isinstance(error, UserError):
            display.write("".join(traceback.format_exception(error)), file=display.fp)
        return killed

    def show(self, running: Iterable[Task], display: Any) -> None:
        """Bring the bar up to date."""
        steps = {t.name: t.progress for t in running}
        self.units |= {t.name: t.length for t in running}
        display.total = sum(self.units.values())
        display.set_postfix({readable(n): f"{s}/{self.units[n]}" for n, s in steps.items() if s}, refresh=False)
        display.update(
            max(0, sum(n for t, n in self.units.items() if t in self.outcome) + sum(steps.values()) - display.n)
        )


def problem(error: BaseException | None) -> str | None:
    """What went wrong, in one line."""
    if error is None:
        return None
    text = (str(error).splitlines() or [""])[0]
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


@contextmanager
def pool(workers: int | None, device: str, modules: Iterable[str]) -> Iterator[Callable[..., Future[str | None]]]:
    """Worker processes that share the processor's cores; yields the function that gives them work. Leaving it by an
    error ends them: what they do can be resumed.

    Args:
        modules: where the work stands. On Linux they are imported once, by a process that the workers are forked from.
    """
    workers, cores = number_of_workers(workers, device), available_cores()
    threads = max(1, min(cores // workers, torch.get_num_threads()))  # what OMP_NUM_THREADS allows this process
    before = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "TQDM_DISABLE")}
    os.environ |= {"OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"}  # inherited by the workers
    context = get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        context.set_forkserver_preload(sorted(modules))
    executor = ProcessPoolExecutor(
        workers, mp_context=context, initializer=start_worker, initargs=(threads, dict(os.environ))
    )
    hook, given, deaf = threading.excepthook, list[Future[str | None]](), threading.Event()

    def submit(*work: Any) -> Future[str | None]:
        try:
            future = executor.submit(*work)
        except (ConnectionError, EOFError) as error:
            raise TrainingError(f"worker processes cannot be started ({error}); is {sys.executable} there?") from error
        given.append(future)
        if deaf.is_set():
            break_off()
        return future

    def break_off() -> None:
        for future in list(given):
            with suppress(InvalidStateError):  # it is done
                future.set_exception(BrokenProcessPool(KILLED))

    def give_up(died: threading.ExceptHookArgs) -> None:
        """The thread that hears what workers do died, for lack of memory: without this, all would wait for ever."""
        if type(died.thread).__name__ != "_ExecutorManagerThread":
            hook(died)
            return
        ended = active_children()
        for worker in ended:
            worker.terminate()
        for worker in ended:
            worker.join()
        deaf.set()
        break_off()

    threading.excepthook = give_up
    try:
        with executor:
            try:
                yield submit
            except BaseException:
                for worker in active_children():
                    worker.terminate()
                raise
    finally:
        threading.excepthook = hook
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def available_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def number_of_workers(workers: int | None, device: str) -> int:
    """``--workers``, or what the machine is good for."""
    return workers or (1 if choose_device(device).type != "cpu" else min(available_cores(), MOST_WORKERS))


def start_worker(threads: int, environment: Mapping[str, str]) -> None:
    """Set the threads of a worker process, and end it when its parent is killed: it would train on, unseen.

    Args:
        environment: of the parent: what the worker was forked from may be older.
    """
    os.environ.clear()
    os.environ.update(environment)
    leave_saying_to_the_parent()
    offline.tell_imported()
    if offline.is_offline():
        offline.block()
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it and ends us
    parent = parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
