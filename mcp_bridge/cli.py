"""The command `mcp-bridge`; `python -m mcp_bridge` is the same.

What a command needs is imported inside it: `check` and `version` must not wait for the web
framework and the SDKs, which only those use that talk to somebody.
"""

import glob
import json
import logging
import platform
import shutil
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, NoReturn

import anyio
import click

from mcp_bridge.types import Json

if TYPE_CHECKING:
    import socket

    from mcp_bridge.bridge import Bridge
    from mcp_bridge.config.load import Loaded
    from mcp_bridge.config.settings import PrefixPolicy, Settings
    from mcp_bridge.doctor import Check
    from mcp_bridge.policy.access import Selection
    from mcp_bridge.tools.catalog import Entry, View

logger = logging.getLogger(__name__)

LEVELS = ("TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
QUIET = "ERROR"
"""The level of commands that say themselves what they find."""

PATIENCE = 2.0
"""Seconds after which a command says whom it waits for."""

COLOURS = {"ok": "green", "warn": "yellow", "FAIL": "red"}

config_option = click.option(
    "--config",
    "path",
    metavar="PATH",
    help="The configuration file. Default: MCP_BRIDGE__CONFIG__FILE, else config.json.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
wait_option = click.option(
    "--wait",
    type=click.FloatRange(min=0, min_open=True),
    default=150,
    show_default=True,
    metavar="SECONDS",
    help="How long MCP servers may take to connect.",
)


def log_option(default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(
        "--log-level",
        type=click.Choice(LEVELS, case_sensitive=False),
        metavar="LEVEL",
        help=f"{', '.join(LEVELS)}: what is logged to standard error. Default: {default}.",
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="mcp-bridge", message="%(prog)s %(version)s")
def main() -> None:
    """Give every OpenAI client the tools of your MCP servers.

    \b
    Begin with:
      mcp-bridge demo                      see it work, nothing to configure
      mcp-bridge check                     is my configuration right?
      mcp-bridge doctor                    does everything behind the bridge answer?
      mcp-bridge serve                     serve it

    The configuration is config.json in this directory unless --config names another file. Each
    command says more with --help.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # what a tool returns may not fit the encoding
            stream.reconfigure(errors="backslashreplace")


# Serving


@main.command()
@config_option
@click.option("--host", metavar="ADDRESS", help="Listen on this address, not on network.host.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="NUMBER",
    help="Listen on this port, not on network.port. 0: any free one.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    metavar="NUMBER",
    help="Answer in so many processes, not in network.workers.",
)
@log_option("logging.log_level")
def serve(
    path: str | None,
    host: str | None,
    port: int | None,
    workers: int | None,
    log_level: str | None,
) -> None:
    """Serve the bridge until it is stopped.

    OpenAI clients use the base URL that the log names at the start. The configuration is watched:
    a change is applied while requests go on, and SIGHUP reads everything again. SIGTERM and Ctrl-C
    end it within 3 seconds.

    \b
    Exit codes:
      0  stopped by a signal
      1  the configuration cannot be used, the port is taken, or a worker cannot start
      2  wrong usage of this command
    \b
    Example:
      mcp-bridge serve --config config.json --port 9090
    """
    network = {"host": host, "port": port, "workers": workers}
    given = overriding(network=network, logging={"log_level": log_level})
    loaded, reload = to_be_served(path, given)
    sockets = listening(loaded)
    if loaded.settings.network.workers > 1:
        served = serve_with_workers(loaded, path, given, sockets)
    else:
        served = serve_http(loaded, reload, sockets)
    raise click.exceptions.Exit(0 if served else 1)


def to_be_served(path: str | None, overrides: Json) -> "tuple[Loaded, Callable[[], Loaded]]":
    """The configuration, with the log as it says, and how both are read again."""
    from mcp_bridge.config.load import load
    from mcp_bridge.telemetry.logging import set_up

    loaded = load_or_exit(path, overrides)
    set_up(loaded.settings)
    for warning in loaded.warnings:
        logger.warning("configuration: %s", warning)

    def reload() -> "Loaded":
        again = load(path, overrides=overrides or None)
        set_up(again.settings)
        return again

    return loaded, reload


def listening(loaded: "Loaded") -> "list[socket.socket]":
    """The public sockets; a port that is taken is told before anything else is imported."""
    from mcp_bridge.errors import ConfigError
    from mcp_bridge.listening import listen

    try:
        return listen(loaded.settings.network)
    except ConfigError as exc:
        refuse(exc.mistakes)


def announcing(loaded: "Loaded", sockets: "list[socket.socket]") -> Callable[[], None]:
    """What the log says once requests are taken."""
    from mcp_bridge.listening import url_of

    network = loaded.settings.network
    url = url_of(network, sockets)  # now: they may be closed before
    what = contents(loaded.settings)
    if network.workers > 1:
        what = f"{count(network.workers, 'worker')}, {what}"
    return lambda: logger.info("listening on %s, with %s", url, what)


def serve_http(
    loaded: "Loaded", reload: "Callable[[], Loaded]", sockets: "list[socket.socket]"
) -> bool:
    """Serve it until a signal; False when it could not start (the log says why)."""
    from mcp_bridge import serve as server
    from mcp_bridge.app import create_app

    return server.serve(create_app(loaded, reload), sockets, announcing(loaded, sockets))


def serve_with_workers(
    loaded: "Loaded", path: str | None, given: Json, sockets: "list[socket.socket]"
) -> bool:
    """The same, in several processes."""
    if sys.platform == "win32":
        refuse(["network.workers: Windows cannot share a port between processes; use 1"])
    from mcp_bridge.errors import ConfigError
    from mcp_bridge.workers.supervise import Plan, supervise

    try:
        return supervise(Plan(loaded, path, given, sockets), announcing(loaded, sockets))
    except ConfigError as exc:
        refuse(exc.mistakes)


@main.command()
@click.option("--once", is_flag=True, help="Ask one question, then end.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    metavar="NUMBER",
    help="Listen on this port. 0: any free one.",
)
@click.option("--question", metavar="TEXT", help="Ask this instead of the question it has.")
def demo(once: bool, port: int, question: str | None) -> None:
    """Show the bridge at work, with nothing to configure.

    Starts the bridge on 127.0.0.1 with MCP servers of its own (clock, calculator, notes), uses the
    first inference server it finds (OPENAI_BASE_URL, Ollama, LM Studio, llama.cpp, vLLM), else a
    small scripted model that is no LLM but really calls the tools. Asks one question, prints the
    answer and how to connect clients, and stays up.

    \b
    Exit codes:
      0  the answer was right (or it was stopped by Ctrl-C)
      1  it was not, or the bridge could not start
    \b
    Example:
      mcp-bridge demo --once
    """
    from mcp_bridge.config.settings import Settings
    from mcp_bridge.demo.run import run_demo
    from mcp_bridge.telemetry.logging import set_up

    set_up(logging_at("WARNING", Settings()))
    run(lambda: run_demo(once=once, host="127.0.0.1", port=port, question=question))


@main.command()
@config_option
@log_option("logging.log_level")
def stdio(path: str | None, log_level: str | None) -> None:
    """Serve all tools as one MCP server over stdio.

    For MCP clients that start their servers themselves. The log goes to standard error; standard
    output belongs to the protocol. The configuration is watched as by `serve`. Ends when standard
    input is closed.

    \b
    Exit codes:
      0  the client has left
      1  the configuration cannot be used, or there is no standard input or output
    \b
    Example, as an entry of another client's configuration:
      {"command": "mcp-bridge", "args": ["stdio", "--config", "/path/to/config.json"]}
    """
    if None in (sys.stdin, sys.stdout):
        refuse(["standard input and output are closed: this command is started by an MCP client"])
    loaded, reload = to_be_served(path, overriding(logging={"log_level": log_level}))

    from mcp_bridge.bridge import open_bridge
    from mcp_bridge.config.follow import following
    from mcp_bridge.mcp_server.stdio import serve_stdio

    async def until_the_client_leaves() -> int:
        async with open_bridge(loaded.settings) as bridge:
            async with following(loaded, reload, bridge.apply):
                await serve_stdio(bridge)
        return 0

    run(until_the_client_leaves)


# Looking at the configuration


@main.command()
@config_option
@click.option("--show", is_flag=True, help="Print the settings in effect, without secrets.")
@json_option
def check(path: str | None, show: bool, as_json: bool) -> None:
    """Say what is wrong with the configuration, without serving it.

    Reads every source that `serve` would read, and names every mistake at once. Nothing is started
    and nobody is asked: whether the servers answer is what `mcp-bridge doctor` finds out.

    \b
    Exit codes:
      0  it can be served (there may be warnings)
      1  it cannot
    \b
    Examples:
      mcp-bridge check --config config.json
      mcp-bridge check --show > effective.json
    """
    found, summary = findings(path, show)
    if as_json:
        say_json(found)
    else:
        tell_findings(found, summary)
    raise click.exceptions.Exit(0 if found["ok"] else 1)


def findings(path: str | None, show: bool) -> tuple[Json, str]:
    """What there is to say about the configuration, as JSON and in one line."""
    from mcp_bridge.config.load import load
    from mcp_bridge.config.redact import redacted
    from mcp_bridge.errors import ConfigError

    found: Json
    try:
        loaded = load(path)
    except ConfigError as exc:
        found = {"ok": False, "mistakes": list(exc.mistakes)}
        found |= {"warnings": list(exc.warnings), "sources": []}
        return found, f"it cannot be used: {count(len(exc.mistakes), 'mistake')}"
    found = {"ok": True, "mistakes": []}
    found |= {"warnings": list(loaded.warnings), "sources": list(loaded.sources)}
    if show:
        found["settings"] = redacted(loaded.settings)
    return found, f"{' + '.join(loaded.sources) or 'no source'}: {contents(loaded.settings)}"


def tell_findings(found: Json, summary: str) -> None:
    for mistake in found["mistakes"]:
        complain(f"error: {mistake}")
    for warning in found["warnings"]:
        complain(f"warning: {warning}")
    if "settings" in found:
        say_json(found["settings"])
    else:
        say(summary)


@main.command()
def schema() -> None:
    """Print the JSON schema of the configuration file.

    Editors complete and check config.json with it when the file says
    "$schema": "./mcp-bridge.schema.json".

    \b
    Exit codes:
      0  always
    \b
    Example:
      mcp-bridge schema > mcp-bridge.schema.json
    """
    from mcp_bridge.config.describe import schema as describe

    say_json(describe())


@main.command(name="version")
@json_option
def show_version(as_json: bool) -> None:
    """Print the versions of the bridge and of what it is built on.

    A report of a problem should hold them.

    \b
    Exit codes:
      0  always
    \b
    Example:
      mcp-bridge version
    """
    found = {name: version_of(name) for name in ("mcp-bridge", "mcp", "openai", "fastapi")}
    found |= {"python": platform.python_version(), "system": platform.platform()}
    if as_json:
        say_json(found)
        return
    for name, number in found.items():
        say(f"{name} {number}")


# Talking to what is behind the bridge


@main.command()
@config_option
@click.option("--no-model", is_flag=True, help="Do not ask a model to call a tool.")
@click.option("--model", metavar="NAME", help="Ask this model, not the first of each server.")
@wait_option
@json_option
@log_option(QUIET)
def doctor(
    path: str | None,
    no_model: bool,
    model: str | None,
    wait: float,
    as_json: bool,
    log_level: str | None,
) -> None:
    """Find out whether everything behind the bridge answers.

    Looks at the configuration, at each inference server (its models, and whether a model really
    calls a tool: streamed, whole, and two at once), at each MCP server (handshake and tools, or
    why not), at the commands they need, and at how much of the model's context all tools take.

    \b
    Marks:
      ok    as it should be
      warn  works, but look at it
      FAIL  does not work, and what to do
    \b
    Exit codes:
      0  nothing failed
      1  something failed
    \b
    Examples:
      mcp-bridge doctor
      mcp-bridge doctor --no-model --json
    """
    from mcp_bridge.doctor import How, examine

    report = Report(as_json)
    loaded = loaded_for(report, path, log_level)
    how = How(probe=not no_model, model=model, wait=wait)

    async def work() -> int:
        await examine(loaded, how, report.add)
        return report.end()

    run(work)


def loaded_for(report: "Report", path: str | None, log_level: str | None) -> "Loaded":
    """The configuration; one that cannot be used is all that is reported."""
    from mcp_bridge.config.load import load
    from mcp_bridge.doctor import refused
    from mcp_bridge.errors import ConfigError
    from mcp_bridge.telemetry.logging import set_up
    from mcp_bridge.telemetry.redactor import Redactor

    try:
        loaded = load(path)
    except ConfigError as exc:
        refused(exc, report.add)
        raise click.exceptions.Exit(report.end()) from None
    set_up(logging_at(log_level or QUIET, loaded.settings))
    report.redact = Redactor.of(loaded.settings)
    return loaded


@main.command()
@config_option
@click.option("--server", metavar="NAME", help="Only the tools of this server.")
@click.option("--toolset", metavar="NAME", help="Only the tools of this toolset.")
@wait_option
@json_option
@log_option(QUIET)
def tools(
    path: str | None,
    server: str | None,
    toolset: str | None,
    wait: float,
    as_json: bool,
    log_level: str | None,
) -> None:
    """List the tools that models get, under the names they see.

    Connects to all MCP servers. Those that fail are named on standard error. With --json: each
    tool's whole definition, and about how many tokens of context it takes.

    \b
    Exit codes:
      0  every server connected
      1  a server failed, or the configuration cannot be used
    \b
    Examples:
      mcp-bridge tools
      mcp-bridge tools --toolset research --json
    """
    settings = quiet_settings(path, log_level)
    check_server(server, settings)
    selections, prefix = selected(server, toolset, settings)

    async def work() -> int:
        async with connected(settings, wait) as bridge:
            view = bridge.catalog.view(selections, prefix)
            failed = failures(bridge, server)
        listing = listing_of(view, failed)
        if as_json:
            say_json(listing)
        else:
            show_tools(listing)
        return 1 if failed else 0

    run(work)


@main.command()
@click.argument("tool")
@click.argument("pairs", nargs=-1, metavar="[KEY=VALUE]...")
@config_option
@click.option(
    "--arguments", "given", metavar="JSON", help="The arguments as a JSON object. -: read them."
)
@click.option("--server", metavar="NAME", help="Connect to this server only, which is faster.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="How long the call may take, instead of the server's own timeout.",
)
@wait_option
@json_option
@log_option(QUIET)
def call(
    tool: str,
    pairs: Sequence[str],
    path: str | None,
    given: str | None,
    server: str | None,
    timeout: float | None,
    wait: float,
    as_json: bool,
    log_level: str | None,
) -> None:
    """Call one TOOL and print what a model would read.

    TOOL is a name that `mcp-bridge tools` lists. Arguments are KEY=VALUE pairs, whose values become
    numbers and so on where the tool's schema says so, or KEY:=JSON pairs; --arguments takes them as
    one JSON object. They are checked against the schema before anything is called. Progress goes to
    standard error. With --json, the raw result of the MCP server.

    \b
    Exit codes:
      0  the tool ran
      1  it failed, there is no such tool, or the arguments do not fit
      2  wrong usage of this command
    \b
    Examples:
      mcp-bridge call get_current_time timezone=Europe/Oslo
      mcp-bridge call add --arguments '{"a": 1, "b": 2}'
      mcp-bridge call search query=mcp 'tags:=["a", "b"]' --server web
    """
    text = arguments_text(given, pairs)
    settings = narrowed(quiet_settings(path, log_level), server)
    show = say_json if as_json else show_result

    async def work() -> int:
        async with connected(settings, wait) as bridge:
            result = await result_of(bridge, found_tool(bridge, tool), text, timeout)
            show(result)
        return 1 if result.get("isError") is True else 0

    run(work)


def narrowed(settings: "Settings", server: str | None) -> "Settings":
    """The settings with that MCP server only; without a name, with all of them."""
    check_server(server, settings)
    if server is None:
        return settings
    return settings.model_copy(update={"mcp_servers": {server: settings.mcp_servers[server]}})


@main.command()
@config_option
@click.option("--hint", "hints", multiple=True, metavar="NAME", help="A name the server asks for.")
@click.option(
    "--intelligence", type=click.FloatRange(0, 1), default=0, metavar="0..1", help="Its priority."
)
@click.option(
    "--cost", type=click.FloatRange(0, 1), default=0, metavar="0..1", help="Its priority."
)
@click.option(
    "--speed", type=click.FloatRange(0, 1), default=0, metavar="0..1", help="Its priority."
)
def sampling(
    path: str | None,
    hints: tuple[str, ...],
    intelligence: float,
    cost: float,
    speed: float,
) -> None:
    """Show which model an MCP server would be given that asks for one.

    Ranks sampling.models as the bridge does for a server's hints and priorities, and says why.
    Nobody is asked.

    \b
    Exit codes:
      0  always, when the configuration can be used
      1  it cannot
    \b
    Example:
      mcp-bridge sampling --hint claude --speed 0.9 --cost 0.2
    """
    from mcp_bridge.inference.choose import Preferences, explained

    loaded = load_or_exit(path)
    wanted = Preferences(hints, intelligence, cost, speed)
    say(explained(loaded.settings.sampling.models, wanted))


# The configuration, for the commands


def overriding(**sections: dict[str, Any]) -> Json:
    """The settings that the command line gives."""
    given = {
        name: {key: value for key, value in section.items() if value is not None}
        for name, section in sections.items()
    }
    return {name: section for name, section in given.items() if section}


def load_or_exit(path: str | None, overrides: Json | None = None) -> "Loaded":
    """The configuration; one that cannot be used ends the command with every mistake."""
    from mcp_bridge.config.load import load
    from mcp_bridge.errors import ConfigError

    try:
        return load(path, overrides=overrides or None)
    except ConfigError as exc:
        refuse(exc.mistakes, exc.warnings)


def quiet_settings(path: str | None, log_level: str | None) -> "Settings":
    """The settings for a command that says itself what it finds."""
    from mcp_bridge.telemetry.logging import set_up

    loaded = load_or_exit(path)
    set_up(logging_at(log_level or QUIET, loaded.settings))
    for warning in loaded.warnings:
        complain(f"warning: {warning}")
    return loaded.settings


def logging_at(level: str, settings: "Settings") -> "Settings":
    logs = settings.logging.model_copy(update={"log_level": level})
    return settings.model_copy(update={"logging": logs})


def contents(settings: "Settings") -> str:
    """What is configured, in a few words."""
    off = sum(server.disabled or bool(server.problem) for server in settings.mcp_servers.values())
    return ", ".join(
        (
            count(len(settings.inference_server), "inference server"),
            count(len(settings.mcp_servers), "MCP server") + (f" ({off} disabled)" if off else ""),
            count(len(settings.toolsets), "toolset"),
        )
    )


def check_server(name: str | None, settings: "Settings") -> None:
    if name is not None and name not in settings.mcp_servers:
        refuse([unknown("MCP server", name, settings.mcp_servers)])


def selected(
    server: str | None, toolset: str | None, settings: "Settings"
) -> "tuple[tuple[Selection, ...], PrefixPolicy | None]":
    """The part of the catalog that is asked for, and how its tools are named."""
    from mcp_bridge.policy.access import Pattern, Selection, of_toolset
    from mcp_bridge.policy.words import prefix_of

    selections: list[Selection] = []
    if server is not None:
        selections.append(Selection((Pattern(glob.escape(server), "*"),), ()))
    if toolset is not None:
        if toolset not in settings.toolsets:
            refuse([unknown("toolset", toolset, settings.toolsets)])
        selections.append(of_toolset(settings.toolsets[toolset]))
    return tuple(selections), prefix_of(toolset, settings)


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    names = list(known)
    close = get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(names)}"
    return f'there is no {what} "{name}"; {hint if names else "none is configured"}'


# The bridge, for the commands


@asynccontextmanager
async def connected(settings: "Settings", wait: float) -> "AsyncGenerator[Bridge]":
    """A bridge whose MCP servers have connected, or failed, or had their time."""
    from mcp_bridge.bridge import open_bridge

    async with open_bridge(settings) as bridge:
        if not await bridge.settled(min(PATIENCE, wait)):
            waiting = [name for name, c in bridge.connections.items() if c.state == "starting"]
            complain(f"waiting for {', '.join(waiting)}")
            await bridge.settled(max(0, wait - PATIENCE))
        yield bridge


def failures(bridge: "Bridge", only: str | None = None) -> list[Json]:
    """The MCP servers that did not connect, and why. One that is meant to be off did not fail."""
    from mcp_bridge.telemetry.redactor import Redactor

    redact = Redactor.of(bridge.settings)
    found: list[Json] = []
    for name, connection in bridge.connections.items():
        meant = connection.state == "disabled" and not connection.settings.problem
        if connection.state == "connected" or meant or only not in (None, name):
            continue
        error = connection.status()["error"] or "it did not connect in time"
        found.append({"server": name, "state": str(connection.state), "error": redact(error)})
    return found


def found_tool(bridge: "Bridge", name: str) -> "Entry":
    """The tool of that name, also by the name that its server gave it."""
    view = bridge.catalog.view()
    entry = view.find(name)
    if entry is not None:
        return entry
    named = [entry for entry in view.entries if entry.tool.name == name]
    if len(named) == 1:
        return named[0]
    close = view.close_matches(name)
    hint = f"; did you mean {' or '.join(close)}?" if close else "; `mcp-bridge tools` lists them"
    lines = [f'there is no tool "{name}"{hint}']
    lines += [f"{each['server']}: {each['state']}: {each['error']}" for each in failures(bridge)]
    refuse(lines)


async def result_of(bridge: "Bridge", entry: "Entry", text: str, timeout: float | None) -> Json:
    """Call the tool as every door does."""
    from mcp_bridge.errors import SourceError
    from mcp_bridge.telemetry.redactor import Redactor
    from mcp_bridge.tools.arguments import BadArguments, read
    from mcp_bridge.tools.runner import ToolCall
    from mcp_bridge.tools.source import CallContext
    from mcp_bridge.types import Caller

    caller = Caller(name="command line")
    context = CallContext(caller, timeout=timeout, on_progress=show_progress, on_log=show_log)
    try:
        arguments = read(text, entry.tool)
        return await bridge.runner.run(ToolCall(caller, entry, arguments, "cli", "cli", context))
    except BadArguments as exc:
        refuse([str(exc)])
    except SourceError as exc:
        refuse([Redactor.of(bridge.settings)(exc.message)])


def run(work: Callable[[], Awaitable[int]]) -> NoReturn:
    """Run it and end with its exit code."""
    try:
        code = anyio.run(work)
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]  # task groups wrap also what ends them on purpose
        raise error from None
    raise click.exceptions.Exit(code)


def arguments_text(given: str | None, pairs: Sequence[str]) -> str:
    """The arguments as JSON text, from --arguments and the pairs, which win."""
    text = sys.stdin.read() if given == "-" else given or ""
    if not pairs:
        return text
    try:
        whole = json.loads(text) if text.strip() else {}
    except ValueError as exc:
        raise click.UsageError(f"--arguments is not JSON: {exc}") from exc
    if not isinstance(whole, dict):
        raise click.UsageError("--arguments must be a JSON object")
    for pair in pairs:
        name, value = read_pair(pair)
        whole[name] = value
    return json.dumps(whole)


def read_pair(pair: str) -> tuple[str, Any]:
    """`key=text` or `key:=json`."""
    name, equals, value = pair.partition("=")
    if not equals or not name.rstrip(":"):
        raise click.UsageError(f"{pair!r} is no argument: write KEY=VALUE or KEY:=JSON")
    if not name.endswith(":"):
        return name, value
    try:
        return name[:-1], json.loads(value)
    except ValueError as exc:
        raise click.UsageError(f"{name[:-1]}: {value!r} is not JSON: {exc}") from exc


# What is printed


def say(text: str) -> None:
    """A line of what was asked for."""
    click.echo(text)


def say_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def complain(text: str) -> None:
    """A line about it, on standard error."""
    from mcp_bridge.telemetry.logging import visible

    click.echo(visible(text), err=True)


def refuse(lines: Iterable[str], warnings: Iterable[str] = ()) -> NoReturn:
    """End with these reasons."""
    for line in lines:
        complain(f"error: {line}")
    for warning in warnings:
        complain(f"warning: {warning}")
    raise click.exceptions.Exit(1)


def count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def version_of(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def listing_of(view: "View", failed: list[Json]) -> Json:
    """The tools of a view as JSON, with what each takes of a model's context."""
    from mcp_bridge.tools.tokens import estimated_tokens

    offered = view.definitions("openai")
    found = [
        {
            "name": entry.name,
            "server": entry.source.name,
            "tokens": estimated_tokens([definition]),
            "definition": entry.tool.definition,
        }
        for entry, definition in zip(view.entries, offered, strict=True)
    ]
    return {"tools": found, "tokens": estimated_tokens(offered), "failed": failed}


def show_tools(listing: Json) -> None:
    from mcp_bridge.telemetry.logging import visible

    rows = [
        (tool["name"], tool["server"], first_line(tool["definition"].get("description")))
        for tool in listing["tools"]
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for name, server, description in rows:
        line = visible(f"{name:<{widths[0]}}  {server:<{widths[1]}}  {description}".rstrip())
        say(line if room is None or len(line) <= room else f"{line[: room - 1]}…")
    servers = len({row[1] for row in rows})
    complain(
        f"{count(len(rows), 'tool')} of {count(servers, 'server')}, about "
        f"{listing['tokens']:,} tokens in each question to a model"
    )
    for each in listing["failed"]:
        complain(f"FAIL {each['server']}: {each['state']}: {each['error']}")


def first_line(text: object) -> str:
    lines = text.strip().splitlines() if isinstance(text, str) else []
    return lines[0].strip() if lines else ""


def show_result(result: Json) -> None:
    from mcp_bridge.agent.convert import readable
    from mcp_bridge.telemetry.logging import visible

    text = readable(result, vision=False).text
    if sys.stdout.isatty():  # a tool must not command the terminal
        text = "\n".join(visible(line) for line in text.split("\n"))
    say(text)


def show_progress(progress: float, total: float | None, message: str | None) -> None:
    done = f"{progress:g}/{total:g}" if total else f"{progress:g}"
    complain(f"progress {done} {message or ''}".rstrip())


def show_log(params: Json) -> None:
    complain(f"{params.get('level', 'log')}: {params.get('data')}")


class Report:
    """What `doctor` found: lines as they come, or one JSON object at the end."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._checks: list[Json] = []
        self.redact: Callable[[str], str] = str

    def add(self, check: "Check") -> None:
        """Take what was found; what neighbours said in it is not trusted."""
        from mcp_bridge.telemetry.logging import visible

        found = {name: visible(self.redact(text)) for name, text in asdict(check).items()}
        new = not self._checks or self._checks[-1]["area"] != found["area"]
        self._checks.append(found)
        if self._as_json:
            return
        if new:
            say(found["area"])
        mark = click.style(f"{found['mark']:<4}", fg=COLOURS[found["mark"]])
        say(f"  {mark}  {found['words']}")
        if found["hint"]:
            say(f"        {found['hint']}")

    def end(self) -> int:
        """Sum it up; the exit code."""
        marks = [check["mark"] for check in self._checks]
        failed, warned = marks.count("FAIL"), marks.count("warn")
        if self._as_json:
            totals = {"ok": not failed, "failed": failed, "warned": warned}
            say_json({**totals, "checks": self._checks})
        else:
            say(f"{failed} failed, {count(warned, 'warning')}, of {len(self._checks)} checks")
        return 1 if failed else 0
