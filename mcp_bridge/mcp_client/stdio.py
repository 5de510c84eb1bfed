"""MCP servers that are child processes.

Theory of operation. The child gets its own process group and a minimal environment. Its stdout is
pushed line by line into a `Peer`, its stderr into the log. Whatever ends first - the process, its
stdout, or our patience - ends the channel, and everything in the group is killed, for `npx` and
`uvx` start the real server as a grandchild. A watchdog, one tiny shell per child, holds a pipe from
the bridge and kills the group when that pipe closes, so that children also die with a bridge that
was killed.
"""

import asyncio
import logging
import os
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import cast

import anyio

from mcp_bridge.config.settings import McpServer
from mcp_bridge.errors import SourceUnavailable
from mcp_bridge.mcp_client.channel import Channel
from mcp_bridge.mcp_client.exchange import CURRENT
from mcp_bridge.mcp_client.jsonrpc import ConnectionLost
from mcp_bridge.mcp_client.peer import Peer

logger = logging.getLogger(__name__)

INHERITED = ("HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "USER", "TZ")
DOCKER_INHERITED = (
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY",
    "XDG_RUNTIME_DIR",
)
GRACE_SECONDS = 0.5
"""How long a server may take to end after stdin is closed, and again after SIGTERM: both are part
of the 3 seconds in which the bridge ends."""

LOOK_SECONDS = 0.05
"""How often it is looked whether those that a server has started are gone too."""

LAST_WORDS_SECONDS = 0.25
"""How long the rest of its output is awaited once a server has exited or closed its stdout."""

LONGEST_MESSAGE = 2**28
"""Bytes. A server that goes on and on without ending a line must not take all memory."""

STDERR_LINES = 50
STDERR_LINE_BYTES = 2000

INSTALL = {
    "uvx": "Install uv",
    "uv": "Install uv",
    "npx": "Install Node.js",
    "node": "Install Node.js",
    "bunx": "Install Bun",
    "bun": "Install Bun",
    "deno": "Install Deno",
    "docker": "Install Docker",
    "podman": "Install Podman",
    "pipx": "Install pipx",
}


@dataclass(frozen=True, slots=True, repr=False)  # it holds secrets, and asyncio logs callbacks
class Command:
    """What to start, checked and complete."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str | None
    secrets: tuple[str, ...]

    def redact(self, text: str) -> str:
        """The text without the values that the configuration calls secret."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def command_for(name: str, settings: McpServer) -> Command:
    """The command of a server with `command` or `image`.

    Raises:
        SourceUnavailable: it cannot be started, and why.
    """
    given = {key: value.get_secret_value() for key, value in settings.env.items()}
    env = inherited(os.environ, docker=settings.image is not None) | given
    argv = _docker(name, settings) if settings.image else (settings.command or "", *settings.args)
    if any("\0" in text for text in (*argv, *env, *env.values())):
        raise SourceUnavailable(name, "the command or its environment holds a NUL character")
    if settings.cwd and not os.path.isdir(settings.cwd):
        raise SourceUnavailable(name, f"working directory not found: {settings.cwd}")
    program = _program(name, argv[0], env, settings.cwd)
    # Short values such as "1" or "true" are no secrets, and would black out half the log.
    secrets = tuple(sorted((v for v in given.values() if len(v) >= 4), key=len, reverse=True))
    return Command((program, *argv[1:]), env, settings.cwd, secrets)


def inherited(environment: "os._Environ[str] | dict[str, str]", *, docker: bool) -> dict[str, str]:
    """The part of our environment that a child gets: nothing that could be a secret."""
    names = INHERITED + (DOCKER_INHERITED if docker else ())
    return {
        key: value
        for key, value in environment.items()
        if (key in names or key.startswith("LC_")) and not value.startswith("()")
    }


def _docker(name: str, settings: McpServer) -> tuple[str, ...]:
    """`docker run` for an image. Values stay in the environment, out of `ps`."""
    image = settings.image or ""
    if image.startswith("-") or not image.strip():
        raise SourceUnavailable(name, f'"image" must name a docker image, not {image!r}')
    names: list[str] = []
    for key in settings.env:
        if not key or "=" in key:
            raise SourceUnavailable(name, f'"env" has a name that docker cannot take: {key!r}')
        names += ["-e", key]
    return ("docker", "run", "--rm", "-i", *names, image, *settings.args)


def _program(name: str, program: str, env: dict[str, str], cwd: str | None) -> str:
    """The full path of the program, as the child would find it."""
    if os.sep in program and not os.path.isabs(program):
        program = os.path.join(os.path.abspath(cwd or "."), program)
    found = shutil.which(program, path=env.get("PATH", os.defpath))
    if found is not None:
        return found
    if os.sep in program and os.path.exists(program):
        raise SourceUnavailable(name, f"not executable: {program}. Check its permissions")
    hint = INSTALL.get(os.path.basename(program), "Install it")
    raise SourceUnavailable(name, f"command not found: {program}. {hint}, or give the full path")


class Lines:
    """Cuts a stream of bytes into lines, in linear time.

    A line that reaches the limit is cut there; with `refuse`, it is dropped and this is called.
    """

    def __init__(
        self, take: Callable[[bytes], None], limit: int, refuse: Callable[[], None] | None = None
    ) -> None:
        self._take = take
        self._limit = limit
        self._refuse = refuse
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        for line in lines:
            if self._parts or len(line) >= self._limit:
                self._add(line)
                self.flush()
            elif line:
                self._take(line)  # a whole one, as nearly all are
        if rest:
            self._add(rest)

    def _add(self, part: bytes) -> None:
        self._parts.append(part)
        self._size += len(part)
        if self._size < self._limit:
            return
        if self._refuse is None:
            self.flush()
            return
        self._parts.clear()
        self._size = 0
        self._refuse()

    def flush(self) -> None:
        """The line is whole (or the stream has ended)."""
        line = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        if line:
            self._take(line)


class Watchdog:
    """Kills the process group when the bridge dies, however it dies.

    It waits for the end of a pipe that only the bridge holds: every other child is started with
    that descriptor closed.
    """

    def __init__(self, group: int) -> None:
        script = 'read _; kill -9 "-$1"'  # dash knows no "--" here
        self._shell = subprocess.Popen(  # noqa: S603  # a fixed script and a number
            ["/bin/sh", "-c", script, "sh", str(group)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={},
        )

    def stop(self) -> None:
        """End it without letting it act: the group's number may belong to somebody else by now."""
        self._shell.kill()
        self._shell.wait()
        if self._shell.stdin is not None:
            self._shell.stdin.close()


@dataclass(slots=True, eq=False, repr=False)
class Child(asyncio.SubprocessProtocol):
    """A running server: asyncio's callbacks on one side, `send` and `stop` on the other."""

    name: str
    command: Command
    on_end: Callable[[str], None]
    on_line: Callable[[bytes], None]
    pid: int = 0
    stderr: deque[str] = field(default_factory=lambda: deque(maxlen=STDERR_LINES))
    _transport: asyncio.SubprocessTransport | None = None
    _stdin: asyncio.WriteTransport | None = None
    _watchdog: Watchdog | None = None
    _writable: asyncio.Event = field(default_factory=asyncio.Event)
    _exited: asyncio.Event = field(default_factory=asyncio.Event)
    _open: set[int] = field(default_factory=lambda: {1, 2})
    _ended: bool = False
    _timer: asyncio.TimerHandle | None = None
    _out: Lines = field(init=False)
    _err: Lines = field(init=False)

    def __post_init__(self) -> None:
        self._out = Lines(self.on_line, LONGEST_MESSAGE, self._goes_on_and_on)
        self._err = Lines(self._log, STDERR_LINE_BYTES)

    async def start(self) -> None:
        """Start the process. Raises OSError when the system refuses."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.subprocess_exec(
            lambda: self,
            *self.command.argv,
            env=self.command.env,
            cwd=self.command.cwd,
            start_new_session=True,
        )
        self._transport = transport
        self._stdin = cast(asyncio.WriteTransport, transport.get_pipe_transport(0))
        self.pid = transport.get_pid()
        self._writable.set()
        self._watchdog = Watchdog(transport.get_pid())

    # asyncio tells us.

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        (self._out if fd == 1 else self._err).feed(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._open.discard(fd)
        if fd == 2:
            self._err.flush()
        elif fd == 1:
            self._out.flush()
            self._may_have_ended()
        else:
            self._stdin = None
            self._writable.set()
        if self._exited.is_set():
            self._may_have_ended()

    def process_exited(self) -> None:
        self._exited.set()
        self._may_have_ended()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _may_have_ended(self) -> None:
        """It is over when the process and its output are gone, or soon after the first of them.

        The output of a dead process is still in the pipe, and holds answers and the reason; but a
        grandchild may keep the pipe open for ever.
        """
        if self._exited.is_set() and not self._open:
            self._end()
        elif self._timer is None and not self._ended:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(LAST_WORDS_SECONDS, self._end)

    def _goes_on_and_on(self) -> None:
        self._end(f"sent more than {LONGEST_MESSAGE} bytes without ending the line")

    def _end(self, why: str | None = None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._ended:
            self._ended = True
            self.on_end(why or self.last_words())
            self._writable.set()

    def _log(self, line: bytes) -> None:
        text = self.command.redact(line.decode(errors="replace").rstrip())
        if text:
            self.stderr.append(text)
            logger.info("%s: %s", self.name, text)

    def last_words(self) -> str:
        """Why it ended, as far as it can be known."""
        code = self._transport.get_returncode() if self._transport else None
        if code is None:
            how = "closed its standard output"
        elif code < 0:
            how = f"was killed by {_signal_name(-code)}"
        else:
            how = f"exited with code {code}"
        last = next((line for line in reversed(self.stderr) if line.strip()), None)
        return f"{how}: {last}" if last else how

    # We tell it.

    async def ready(self) -> None:
        """Wait, with nothing sent, while the server does not read."""
        if not self._writable.is_set():
            await self._writable.wait()

    async def send(self, data: bytes) -> None:
        """Write one message.

        Raises:
            ConnectionLost: it is not running any more.
        """
        if self._exited.is_set():
            self._end()
        if self._ended or self._stdin is None or self._stdin.is_closing():
            raise ConnectionLost(self.last_words())
        if (exchange := CURRENT.get()) is not None:
            exchange.sent = True
        self._stdin.write(data)

    async def stop(self) -> None:
        """Close stdin, then SIGTERM, then SIGKILL to the whole group; reap it. Never raises."""
        if self._transport is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._ended = True
        if self._stdin is not None:
            self._stdin.close()
        if not self._exited.is_set():  # what a server leaves behind that has died ends at once
            await self._ask_to_end()
        self._signal(signal.SIGKILL)
        if not await self._exits_within(GRACE_SECONDS):
            logger.error("%s: process %d cannot be killed", self.name, self.pid)
        if self._watchdog is not None:
            self._watchdog.stop()
        if self._stdin is not None and self._stdin.get_write_buffer_size():
            self._stdin.abort()  # what it has not read keeps the pipe open
        with suppress(PermissionError, ProcessLookupError):
            self._transport.close()

    async def _ask_to_end(self) -> None:
        if await self._gone_within(GRACE_SECONDS):
            return
        self._signal(signal.SIGTERM)
        if not await self._gone_within(GRACE_SECONDS):
            logger.warning("%s: does not end, and is killed", self.name)

    async def _gone_within(self, seconds: float) -> bool:
        """Whether it ends in that time, with all that it has started.

        A wrapper such as `npx` may end at a signal before the server that it has started.
        """
        with anyio.move_on_after(seconds):
            await self._exited.wait()
            while has_members(self.pid):  # noqa: ASYNC110  # nobody tells us of their end
                await anyio.sleep(LOOK_SECONDS)
            return True
        return False

    async def _exits_within(self, seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            await self._exited.wait()
        return self._exited.is_set()

    def _signal(self, number: signal.Signals) -> None:
        # The group outlives its leader as long as a grandchild runs.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def has_members(group: int) -> bool:
    """Whether a process of the group still runs, as far as the system tells.

    Zombies do not, but count for `killpg`, and not every container has an init that collects them.
    """
    try:
        os.killpg(group, 0)
        pids = [name for name in os.listdir("/proc") if name.isdecimal()]
    except OSError:
        return False
    return any(_runs_in(group, pid) for pid in pids)


def _runs_in(group: int, pid: str) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, _, its_group, *_ = file.read().rpartition(b") ")[2].split()
    except OSError:  # it has ended meanwhile
        return False
    return int(its_group) == group and state not in (b"Z", b"X")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@asynccontextmanager
async def open_stdio(name: str, settings: McpServer) -> AsyncGenerator[Channel]:
    """Start the server; on leaving, stop it and everything that it has started."""
    command = command_for(name, settings)
    peer: Peer
    channel: Channel

    def ended(reason: str) -> None:
        channel.fail(reason)
        peer.close(reason)

    child = Child(name, command, ended, lambda line: peer.receive(line))
    peer = Peer(name, child)
    channel = Channel("stdio", peer, stderr=child.stderr, noise=lambda: peer.noise)
    try:
        with anyio.CancelScope(shield=True):  # a start that is cut in half leaves a process behind
            await child.start()
        channel.pid = child.pid
        yield channel
    except OSError as exc:
        words = exc.strerror or type(exc).__name__
        raise SourceUnavailable(name, f"cannot start {command.argv[0]}: {words}") from exc
    finally:
        peer.close("the bridge has stopped the server")
        with anyio.CancelScope(shield=True):
            await child.stop()
