"""The process that starts the workers, keeps them, and hands signals on.

It opens the sockets before any worker runs, the public ones and one for each worker, and never
reads from them: a worker inherits its own. So what has been sent to a worker that ends waits for
the next one. A worker that ends is started again; one that cannot start for the first time ends
everything. When this process ends, the workers see the end of their connection to it.

A worker that hangs is ended, too: each is asked every few seconds whether its loop runs, and may
leave some questions in a row unanswered. Questions are counted, not seconds: while the machine, or
this process, is suspended, nobody asks.
"""

import logging
import os
import pickle
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

import anyio
import anyio.abc

from mcp_bridge.config.load import Loaded
from mcp_bridge.errors import ConfigError
from mcp_bridge.types import Json
from mcp_bridge.workers.job import ALIVE, READY, Job, address, counts_in, metrics_in
from mcp_bridge.workers.pipe import Broken, Pipe, adopt
from mcp_bridge.workers.taking import Counts

logger = logging.getLogger(__name__)

END_SECONDS = 2.8
"""How long workers may take to end; then they are killed."""

STABLE_SECONDS = 30.0
"""A worker that lived this long starts again at once, whatever was before."""

ASK_SECONDS = 5.0
"""How often a worker is asked whether its loop runs."""

SLOW, HUNG = 3, 6
"""After so many unanswered questions the log tells of a worker, and it is ended."""

LONGEST_WAIT = 10.0
BACKLOG = 2048


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be served: the configuration, and how it is read again."""

    loaded: Loaded
    path: str | None
    overrides: Json
    sockets: Sequence[socket.socket]
    command: Sequence[str] = (sys.executable, "-m", "mcp_bridge.workers.run")
    ask_seconds: float = ASK_SECONDS

    @property
    def workers(self) -> int:
        return self.loaded.settings.network.workers


def supervise(plan: Plan, on_start: Callable[[], None]) -> bool:
    """Serve with several workers until a signal ends it; `on_start` is called when all are ready.

    Returns False when a worker could not start (its log says why).

    Raises:
        ConfigError: there is no place for what the workers share.
    """
    with rooms(plan.workers) as (directory, inside):
        supervisor = Supervisor(plan, directory, inside, on_start)
        anyio.run(supervisor.run)
    return not supervisor.failed


@contextmanager
def rooms(workers: int) -> Generator[tuple[str, list[socket.socket]]]:
    """A private directory, and in it a socket for each worker."""
    with ExitStack() as stack:
        try:
            directory = tempfile.mkdtemp(prefix="mcp-bridge-")  # for this user only
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            os.mkdir(metrics_in(directory))
            Counts.make(counts_in(directory), workers)
            inside = [stack.enter_context(room(directory, n)) for n in range(workers)]
        except OSError as exc:
            words = (
                "workers need a directory for their sockets; set TMPDIR to one with a short path"
            )
            raise ConfigError([f"network.workers: {words} ({exc})"]) from exc
        yield directory, inside


def room(directory: str, number: int) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    try:
        made.bind(address(directory, number))
        made.listen(BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


@dataclass(slots=True)
class Started:
    """A running worker. `ready`: it takes requests, and knows what signals mean."""

    process: anyio.abc.Process
    pipe: Pipe
    ready: bool = False
    unanswered: int = 0
    began: float = field(default_factory=time.monotonic)

    def ask(self) -> None:
        """Ask whether its loop runs; whatever it says is an answer."""
        self.unanswered += 1
        with suppress(Broken):  # it has just ended
            self.pipe.put(ALIVE)

    @property
    def was_stable(self) -> bool:
        return time.monotonic() - self.began > STABLE_SECONDS


class Supervisor:
    """Keeps the workers."""

    def __init__(
        self,
        plan: Plan,
        directory: str,
        inside: Sequence[socket.socket],
        on_start: Callable[[], None],
    ) -> None:
        self._plan = plan
        self._directory = directory
        self._inside = inside
        self._on_start = on_start
        self._loaded = plan.loaded
        self._workers: dict[int, Started] = {}
        self._ready: set[int] = set()  # now or before
        self._announced = False
        self._stopping = anyio.Event()
        self.failed = False

    async def run(self) -> None:
        """Start all side by side; return when all have ended."""
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        with anyio.open_signal_receiver(*numbers) as signals:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._kill_those_who_stay)
                async with anyio.create_task_group() as workers:
                    for number in range(self._plan.workers):
                        workers.start_soon(self._keep, number)
                    tasks.start_soon(self._obey, signals)
                tasks.cancel_scope.cancel()

    async def _obey(self, signals: AsyncIterator[signal.Signals]) -> None:
        async for number in signals:
            if number == signal.SIGHUP:
                self._signal(number, [worker for worker in self._workers.values() if worker.ready])
            elif self._stopping.is_set():  # again: who sends Ctrl-C twice does not want to wait
                self._signal(number, self._workers.values())
            else:
                self._stop()

    def _signal(self, number: signal.Signals, workers: Iterable[Started]) -> None:
        for worker in workers:
            if worker.process.returncode is None:
                worker.process.send_signal(number)

    def _stop(self) -> None:
        for public in self._plan.sockets:
            public.close()  # the workers close theirs: from now on clients are refused
        self._stopping.set()
        self._signal(signal.SIGTERM, self._workers.values())

    async def _kill_those_who_stay(self) -> None:
        await self._stopping.wait()
        await anyio.sleep(END_SECONDS)
        logger.warning("not all workers have ended in time: they are killed")
        self._signal(signal.SIGKILL, self._workers.values())

    async def _keep(self, number: int) -> None:
        """Start a worker, and again whenever it ends."""
        deaths = 0
        while not self._stopping.is_set():
            worker = self._workers[number] = await self._start(number)
            if self._stopping.is_set():  # it was being started meanwhile
                self._signal(signal.SIGTERM, [worker])
            code = await self._end_of(number, worker)
            if self._stopping.is_set():
                return
            if number not in self._ready:
                logger.error("worker %d could not start (%s)", number, how(code))
                self.failed = True
                self._stop()
                return
            deaths = 1 if worker.was_stable else deaths + 1
            logger.error("worker %d has ended (%s); it starts again", number, how(code))
            self._forget_gauges(worker.process.pid)
            with anyio.move_on_after(seconds_after(deaths)):
                await self._stopping.wait()

    async def _start(self, number: int) -> Started:
        ours, theirs = socket.socketpair()
        with theirs:
            job = self._job(number)
            inherited = (theirs.fileno(), job.inside, *job.sockets)
            process = await anyio.open_process(
                [*self._plan.command, str(theirs.fileno())],
                stdin=None,
                stdout=None,
                stderr=None,
                pass_fds=inherited,
                start_new_session=True,  # a terminal's signals are for the supervisor
                env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": metrics_in(self._directory)},
            )
        logger.info("worker %d is process %d", number, process.pid)
        pipe = await adopt(ours)
        pipe.put(job.packed())
        return Started(process, pipe)

    def _job(self, number: int) -> Job:
        return Job(
            number=number,
            of=self._plan.workers,
            directory=self._directory,
            inside=self._inside[number].fileno(),
            sockets=tuple(public.fileno() for public in self._plan.sockets),
            loaded=self._loaded,
            path=self._plan.path,
            overrides=self._plan.overrides,
            fresh=number in self._ready,
        )

    async def _end_of(self, number: int, worker: Started) -> int:
        """Hear what a worker says until it ends; its exit code."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._listen_to, number, worker)
            tasks.start_soon(self._watch, number, worker)
            code = await worker.process.wait()
            tasks.cancel_scope.cancel()
        worker.pipe.abort()
        return code

    async def _listen_to(self, number: int, worker: Started) -> None:
        while (said := await worker.pipe.receive()) is not None:
            if worker.unanswered > SLOW:
                logger.warning("worker %d answers again", number)
            worker.unanswered = 0
            if said == READY:
                self._is_ready(number, worker)
            elif said != ALIVE:  # the configuration was read again
                self._loaded = pickle.loads(said)  # noqa: S301  # from our own worker

    def _is_ready(self, number: int, worker: Started) -> None:
        worker.ready = True
        logger.info("worker %d takes requests", number)
        self._ready.add(number)
        if len(self._ready) == self._plan.workers and not self._announced:
            self._announced = True
            self._on_start()

    async def _watch(self, number: int, worker: Started) -> None:
        """Ask a worker whether its loop runs, and end it when it has not said so for long."""
        seconds = self._plan.ask_seconds
        while worker.unanswered < HUNG:
            if worker.ready:
                worker.ask()
            await anyio.sleep(seconds)
            if worker.unanswered == SLOW:
                logger.warning("worker %d has not answered for %g s", number, SLOW * seconds)
        if not self._stopping.is_set():
            words = "worker %d has not answered for %g s: it is blocked or stopped, so it is ended"
            logger.error(words, number, HUNG * seconds)
            await self._end(worker)

    async def _end(self, worker: Started) -> None:
        self._signal(signal.SIGTERM, [worker])
        await anyio.sleep(END_SECONDS)
        self._signal(signal.SIGKILL, [worker])

    def _forget_gauges(self, pid: int) -> None:
        """What a process that has ended had open is open no more."""
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(pid, metrics_in(self._directory))  # type: ignore[no-untyped-call]  # it has none


def seconds_after(deaths: int) -> float:
    """How long to wait after so many deaths in a row: 0, 0.5 s, and doubled up to 10 s."""
    return min(0.5 * 2.0 ** (deaths - 2), LONGEST_WAIT) if deaths > 1 else 0.0


def how(code: int) -> str:
    """How a process has ended, in words."""
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
