"""The demo: the bridge with three MCP servers of its own, and one question asked through it."""

import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import click
from pydantic import SecretStr

from mcp_bridge.app import create_app
from mcp_bridge.bridge import Bridge
from mcp_bridge.config.load import Loaded
from mcp_bridge.config.safety import is_loopback
from mcp_bridge.config.settings import InferenceServer, McpServer, Network, Settings
from mcp_bridge.demo import finder, help
from mcp_bridge.demo.ask import USUAL, Question, ask, reason_against
from mcp_bridge.demo.model import MODEL, scripted_model
from mcp_bridge.demo.serving import serving
from mcp_bridge.errors import ConfigError
from mcp_bridge.listening import listen, url_of
from mcp_bridge.mcp_client.connection import Connection, State

STARTUP_SECONDS = 30
SERVERS = "mcp_bridge.demo.servers"


@dataclass(frozen=True, slots=True)
class Demo:
    """What is served, and what is asked of it."""

    network: Network
    base_url: str
    inference: InferenceServer
    model: str
    notes: Path

    def settings(self) -> Settings:
        return Settings(
            inference_server=(self.inference,),
            mcp_servers={
                "clock": mcp_server("clock"),
                "calculator": mcp_server("calculator"),
                "notes": mcp_server("notes", str(self.notes)),
            },
            network=self.network,
        )


async def run_demo(
    *,
    once: bool,
    host: str = "127.0.0.1",
    port: int = 8000,
    question: str | None = None,
    where: Sequence[finder.Candidate] | None = None,
) -> int:
    """Show the bridge at work, and keep it up until Ctrl-C or SIGTERM.

    `where` inference servers are looked for; None: in the environment and on the usual ports. With
    `once` it ends after the question. Returns the exit code: 0, or 1 when it could not start or,
    with `once`, when the answer was not right.
    """
    if not is_loopback(host):
        say(f"The demo asks nobody for a key, so it listens on loopback only and not on {host}.")
        say("For that, use mcp-bridge serve with security.auth.")
        return 1
    candidates = finder.candidates(os.environ) if where is None else where
    search = await finder.search(candidates, os.environ.get("OPENAI_MODEL"))
    say(help.about_search(search))
    network = Network(host=host, port=port)
    with ExitStack() as stack:
        try:
            sockets = stack.enter_context(listening(network))
            notes = stack.enter_context(notes_folder(keep=not once))
        except (ConfigError, OSError) as exc:
            say(f"The demo cannot start: {exc}")
            return 1
        async with inference_server(search.found) as (inference, model):
            demo = Demo(network, url_of(network, sockets), inference, model, notes)
            return await until_a_signal(demo, sockets, question, once)


async def until_a_signal(
    demo: Demo, sockets: list[socket.socket], question: str | None, once: bool
) -> int:
    """Serve, ask, and keep serving, unless a signal comes first."""
    code = 1 if once else 0  # if a signal comes first
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stop_at_a_signal, tasks.cancel_scope)
        app = create_app(Loaded(demo.settings()))
        async with serving(app, sockets) as started:
            if not started:
                say("The bridge could not start; standard error says why.")
                code = 1
            else:
                reason = await answer(demo, app.state.bridge, question)
                code = 1 if reason and once else 0
                say(help.connect(demo.base_url, demo.model, stays=not once))
                if not once:
                    say(f"Notes are kept in {demo.notes}. Ctrl-C ends the demo.")
                    await anyio.sleep_forever()
        tasks.cancel_scope.cancel()
    return code


async def stop_at_a_signal(scope: anyio.CancelScope) -> None:
    if sys.platform == "win32":
        return  # there Ctrl-C cancels the main task by itself
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()


async def answer(demo: Demo, bridge: Bridge, question: str | None) -> str | None:
    """Ask and show everything. Returns why the answer is not right, None when it is."""
    asked = Question(question) if question else USUAL
    await bridge.settled(STARTUP_SECONDS)
    say(help.about_servers([state_of(one) for one in bridge.connections.values()]))
    say(f"\nQuestion: {asked.text}")
    outcome = await ask(demo.base_url, demo.model, asked.text, show)
    reason = reason_against(outcome, asked)
    say(f"\n\nThe question was not answered rightly: {reason}.\n" if reason else "\n")
    return reason


def state_of(connection: Connection) -> tuple[str, str]:
    """Its name, and how it is."""
    if connection.state is State.CONNECTED:
        count = len(connection.tools)
        return connection.name, f"{count} tool{'' if count == 1 else 's'}"
    return connection.name, f"{connection.state}: {connection.status()['error']}"


def mcp_server(module: str, *arguments: str) -> McpServer:
    """One of the servers that come with the package."""
    return McpServer(command=sys.executable, args=("-m", f"{SERVERS}.{module}", *arguments))


@asynccontextmanager
async def inference_server(
    found: finder.Answered | None,
) -> AsyncGenerator[tuple[InferenceServer, str]]:
    """The inference server that was found and its model, else the scripted model, started."""
    if found is not None and found.model is not None:
        candidate = found.candidate
        key = SecretStr(candidate.api_key) if candidate.api_key else None
        yield InferenceServer(base_url=candidate.base_url, api_key=key), found.model
        return
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with serving(scripted_model(), [listener]):
            address = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
            yield InferenceServer(name="scripted model", base_url=address), MODEL


@contextmanager
def listening(network: Network) -> Iterator[list[socket.socket]]:
    """The port that was asked for, or a free one when that is taken.

    Raises:
        ConfigError: there is no such address here.
    """
    try:
        sockets = listen(network)
    except ConfigError:
        sockets = listen(network.model_copy(update={"port": 0}))
        say(f"Port {network.port} cannot be had, so the bridge takes a free one.")
    with ExitStack() as stack:
        for one in sockets:
            stack.enter_context(one)
        yield sockets


@contextmanager
def notes_folder(*, keep: bool) -> Iterator[Path]:
    """Where the notes are: a folder of the user's that stays, or a temporary one."""
    if keep:
        folder = data_folder(os.environ) / "mcp-bridge" / "notes"
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    else:
        with tempfile.TemporaryDirectory(prefix="mcp-bridge-notes-") as temporary:
            yield Path(temporary)


def data_folder(environ: Mapping[str, str]) -> Path:
    """Where programs of this user keep their data (XDG base directories)."""
    named = environ.get("XDG_DATA_HOME", "")
    return Path(named) if os.path.isabs(named) else Path.home() / ".local" / "share"


def say(text: str) -> None:
    click.echo(text)


def show(text: str) -> None:
    click.echo(text, nl=False)
