"""Whether everything behind the bridge answers, and what to do where it does not (U5).

The MCP servers connect while the inference servers are asked; what is found is told in the same
order every time. Nothing here changes anything: one tiny tool is offered to a model, and the
MCP servers are asked for their lists.
"""

import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import anyio

from mcp_bridge.bridge import Bridge, open_bridge
from mcp_bridge.config.load import Loaded
from mcp_bridge.config.safety import is_loopback
from mcp_bridge.config.settings import InferenceServer, McpServer, Settings
from mcp_bridge.errors import ConfigError, InferenceError
from mcp_bridge.exact import decode
from mcp_bridge.inference.answer import Answer, ModelCall
from mcp_bridge.inference.calls import is_object
from mcp_bridge.inference.client import Inference
from mcp_bridge.inference.routing import NO_LIST, Upstream, is_glob, is_listed, matches
from mcp_bridge.inference.transport import UNREACHABLE, Endpoint
from mcp_bridge.mcp_client.connection import Connection, State
from mcp_bridge.tools.tokens import estimated_tokens
from mcp_bridge.types import Json

Mark = Literal["ok", "warn", "FAIL"]

PROBE_SECONDS = 180.0
"""A model may have to be loaded first."""

PROBE_TOKENS = 1024
"""Enough for a model that thinks before it calls."""

SHORTEST_KEY = 16
MOST_TOOLS = 128
"""OpenAI and others refuse more in one question."""

NO_ROOM, LITTLE_ROOM = 0.75, 0.25
"""Shares of a model's context that all tools may take."""

LAST_WORDS = 3
KINDS = ("tools", "prompts", "resources")
SHOWN_MODELS = 8

TOOL_NAME = "get_weather"
TOOL: Json = {
    "type": "function",
    "function": {
        "name": TOOL_NAME,
        "description": "Get the weather of one city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "The city's name."}},
            "required": ["city"],
        },
    },
}
QUESTION = (
    f"What is the weather in Oslo and in Lima? Call the tool {TOOL_NAME} once for each of the two "
    "cities, both calls at the same time. Say nothing else."
)

NOT_FOR_CHAT = ("embed", "rerank", "whisper", "tts", "dall-e", "moderation", "transcribe")

RUNTIMES = {
    "uvx": "it comes with uv: install uv with pipx, brew, or your system's packages",
    "uv": "install uv with pipx, brew, or your system's packages",
    "npx": "it comes with Node.js (with npm): install Node.js 20 or newer",
    "node": "install Node.js 20 or newer",
    "bunx": "it comes with Bun: install Bun",
    "deno": "install Deno",
    "docker": "install Docker, and let this user talk to its daemon",
    "podman": "install Podman",
    "python": "install Python 3, or name python3",
    "python3": "install Python 3",
    "pipx": "install pipx with your system's packages",
}
ALSO_NEEDED = {"npx": "node"}

USUAL_PORTS = {
    "11434": "is Ollama running? (`ollama serve`)",
    "1234": "is LM Studio's local server started?",
    "8080": "is llama-server running?",
    "8000": "is vLLM running? (`vllm serve`)",
}
TEXT_CALL_ADVICE = (
    "the server does not read the model's calls: llama-server needs --jinja, vLLM "
    "--enable-auto-tool-choice and --tool-call-parser, others a chat template with tools; "
    "else name the model in inference_server.text_tool_calls"
)
NO_CALL_ADVICE = "take a model that is made for tools; small ones often are not"
FEWER_TOOLS = (
    'choose with "include" and "exclude" of the servers, or with toolsets; '
    "or give the model a larger context"
)
ADVICE = {
    "enable-auto-tool-choice": "start vLLM with --enable-auto-tool-choice and --tool-call-parser",
    "jinja": "start llama-server with --jinja",
    "does not support tools": NO_CALL_ADVICE,
    "not a valid model": "name another with --model",
}
"""What helps when an error says this."""

HINTS = {
    State.NEEDS_AUTH: 'put a token into its "headers"',
    State.STARTING: "wait longer with --wait; servers that are downloaded first need minutes",
}
FETCH_SECONDS = 5.0
CONTEXT_FIELDS = (
    "loaded_context_length",
    "max_model_len",
    "context_length",
    "context_window",
    "max_context_length",
    "n_ctx",
)
"""What servers call the size of a model's context in their lists, the most certain first."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `hint` says what to do."""

    area: str
    mark: Mark
    words: str
    hint: str = ""


Tell = Callable[[Check], None]


@dataclass(frozen=True, slots=True)
class How:
    """How thorough: whether a model is asked, which one, and how long MCP servers may take."""

    probe: bool = True
    model: str | None = None
    wait: float = 150


@dataclass(frozen=True, slots=True)
class Area:
    """What findings are about, and who is told."""

    name: str
    tell: Tell

    def ok(self, words: str) -> None:
        self.tell(Check(self.name, "ok", words))

    def warn(self, words: str, hint: str = "") -> None:
        self.tell(Check(self.name, "warn", words, hint))

    def fail(self, words: str, hint: str = "") -> None:
        self.tell(Check(self.name, "FAIL", words, hint))


def refused(error: ConfigError, tell: Tell) -> None:
    """What is found when there is no configuration to look behind."""
    area = Area("configuration", tell)
    for mistake in error.mistakes:
        area.fail(mistake)
    for warning in error.warnings:
        area.warn(warning)


async def examine(loaded: Loaded, how: How, tell: Tell) -> None:
    """Look at everything; `tell` gets each finding as soon as it is known."""
    settings = loaded.settings
    look_at_configuration(loaded, Area("configuration", tell))
    contexts: list[Context] = []
    async with open_bridge(settings) as bridge:
        for server in settings.inference_server:
            contexts += await look_at_inference_server(server, how, tell)
        look_at_commands(settings.mcp_servers, Area("commands of MCP servers", tell))
        await bridge.settled(how.wait)
        area = Area("MCP servers", tell)
        for connection in bridge.connections.values():
            look_at_connection(connection, area)
        look_at_tools(bridge, contexts, Area("tools", tell))


# The configuration


def look_at_configuration(loaded: Loaded, area: Area) -> None:
    settings = loaded.settings
    area.ok(f"loads from {' + '.join(loaded.sources) or 'no source'}")
    for warning in loaded.warnings:
        area.warn(warning)
    if not settings.inference_server:
        area.fail(
            "no inference server is configured: there is no model to talk to",
            "set inference_server.base_url, such as http://127.0.0.1:11434/v1",
        )
    if not settings.mcp_servers:
        area.warn("no MCP server is configured: the bridge adds no tools", "set mcp_servers")
    look_at_openings(settings, area)


def look_at_openings(settings: Settings, area: Area) -> None:
    """Who could come in. What is refused at the start has been refused while loading."""
    host, auth, cors = settings.network.host, settings.security.auth, settings.security.cors
    if is_loopback(host):
        area.ok(f"listens on {host}: only this machine can connect")
    elif auth.enabled:
        area.ok(f"listens on {host}, and asks for one of {len(auth.api_keys)} API keys")
    else:
        area.warn(
            f"listens on {host} without authentication: everybody who reaches it can run the tools",
            "set security.auth.enabled and security.auth.api_keys",
        )
    for number, key in enumerate(auth.api_keys):
        if len(key.key.get_secret_value()) < SHORTEST_KEY:
            area.warn(
                f"security.auth.api_keys.{number} is short enough to be guessed",
                "make one with: openssl rand -hex 32",
            )
    if cors.enabled and "*" in cors.allow_origins:
        area.warn(
            "security.cors: every web page that its users visit may call the bridge",
            "name the origins instead of *",
        )


# The inference servers


@dataclass(frozen=True, slots=True)
class Context:
    """How many tokens a model takes, as its server tells."""

    model: str
    tokens: int


async def look_at_inference_server(server: InferenceServer, how: How, tell: Tell) -> list[Context]:
    """Its models, a tool call, and the size of the model's context, if the server tells."""
    server = server.model_copy(update={"max_retries": 0})
    upstream = Upstream(server)
    place = upstream.endpoint.address.shown
    area = Area(f"inference server {upstream.endpoint.name} ({place})", tell)
    try:
        await upstream.refresh(0)
        if not look_at_models(upstream, area):
            return []
        model = model_to_ask(upstream, how.model, area)
        if model is None:
            return []
        if how.probe:
            await look_at_calls(server, model, area)
        tokens = await context_of(upstream, model)
        return [Context(model, tokens)] if tokens else []
    finally:
        await upstream.endpoint.aclose()


def look_at_models(upstream: Upstream, area: Area) -> bool:
    """Whether it can be asked."""
    problem = upstream.listed.problem
    if problem is not None and problem.status not in NO_LIST:
        area.fail(problem.message, hint_for(problem, upstream.endpoint))
        return False
    if problem is not None:
        area.warn(f"does not list its models: {problem.message}")
    names = [entry["id"] for entry in upstream.offers()]
    if names:
        more = f", and {len(names) - SHOWN_MODELS} more" if len(names) > SHOWN_MODELS else ""
        area.ok(f"models: {', '.join(names[:SHOWN_MODELS])}{more}")
    elif problem is None:
        area.fail("answers, but has no model", "load or pull one there")
    listed = upstream.listed.entries
    ids = [entry["id"] for entry in listed or ()]
    for pattern in upstream.settings.models if listed else ():
        found = any(matches(name, (pattern,)) for name in ids)
        if not (found if is_glob(pattern) else is_listed(pattern, ids)):
            area.warn(f'its "models" name {pattern}, which the server does not list')
    return True


def model_to_ask(upstream: Upstream, wanted: str | None, area: Area) -> str | None:
    names = [entry["id"] for entry in upstream.offers()]
    if wanted is not None:
        if upstream.has(wanted) is False:
            area.warn(f"no tool call was tried: it has no model {wanted}")
            return None
        return wanted
    chat = (name for name in names if not any(word in name.lower() for word in NOT_FOR_CHAT))
    model: str | None = next(chat, None)
    if model is None:
        area.warn("no tool call was tried: no model is known", "name one with --model")
    return model


def hint_for(problem: InferenceError, endpoint: Endpoint) -> str:
    """What usually helps."""
    message = problem.message.lower()
    for sign, advice in ADVICE.items():
        if sign in message:
            return advice
    if problem.status in (401, 403):
        return "set inference_server.api_key to a key of that server"
    if problem.code != UNREACHABLE:
        return ""
    port = endpoint.address.host.rpartition(":")[2]
    advice = USUAL_PORTS.get(port, "is the server running, and is base_url right?")
    if endpoint.address.is_local and Path("/.dockerenv").exists():
        advice += (
            " In a container, 127.0.0.1 is the container itself: "
            "use host.docker.internal, or the service's name."
        )
    return advice


# A tool call


async def look_at_calls(server: InferenceServer, model: str, area: Area) -> None:
    """Have the model call a tool, in both shapes that clients ask for."""
    for streamed in (False, True):
        what = f"tool call of {model}, {'streamed' if streamed else 'whole'}"
        began = time.monotonic()
        try:
            with anyio.fail_after(PROBE_SECONDS):
                answer = await asked(server, question(model, streamed=streamed))
        except TimeoutError:
            area.fail(f"{what}: no answer within {PROBE_SECONDS:g} s")
            return
        except InferenceError as exc:
            area.fail(f"{what}: {exc.message}", hint_for(exc, Endpoint(server)))
        else:
            mark, words, hint = judged(answer)
            seconds = time.monotonic() - began
            area.tell(Check(area.name, mark, f"{what}: {words} ({seconds:.1f} s)", hint))


def question(model: str, *, streamed: bool) -> Json:
    return {
        "model": model,
        "messages": [{"role": "user", "content": QUESTION}],
        "tools": [TOOL],
        "tool_choice": "auto",
        "max_tokens": PROBE_TOKENS,
        "stream": streamed,
    }


async def asked(server: InferenceServer, body: Json) -> Answer:
    """The answer, as the bridge would get it."""
    try:
        return await answer_to(server, body)
    except InferenceError as exc:
        if exc.status != 400 or "max_completion_tokens" not in exc.message:
            raise
    renamed = {**body, "max_completion_tokens": body["max_tokens"]}  # OpenAI's newer models
    del renamed["max_tokens"]
    return await answer_to(server, renamed)


async def answer_to(server: InferenceServer, body: Json) -> Answer:
    inference = Inference((server,))
    try:
        async with aclosing(await inference.chat(body, text_calls_for=(TOOL_NAME,))) as parts:
            async for part in parts:
                if isinstance(part, Answer):
                    return part
    finally:
        await inference.aclose()
    raise InferenceError("the answer has no end")


def judged(answer: Answer) -> tuple[Mark, str, str]:
    """What an answer to the question says about the model and its server: mark, words, hint."""
    calls = [call for call in answer.calls if call.name == TOOL_NAME]
    if any(is_usable(call) for call in calls):
        if not all(is_usable(call) for call in calls):
            return "warn", "one of its calls has arguments that are not JSON", ""
        how_many = "two at once" if len(calls) > 1 else "one at a time"
        return "ok", f"structured calls, {how_many}", ""
    text = text_of(answer.message.get("content"))
    if answer.finish_reason == "length":
        return "warn", f"was cut off after {PROBE_TOKENS} tokens before it had called", ""
    if calls:
        return "FAIL", "the call's arguments are not JSON", TEXT_CALL_ADVICE
    if TOOL_NAME in text:
        return "FAIL", "the call is written as text, not as a call", TEXT_CALL_ADVICE
    if not text.strip():
        return "FAIL", "the answer is empty", TEXT_CALL_ADVICE
    return "warn", "it answered without calling the tool", NO_CALL_ADVICE


def is_usable(call: ModelCall) -> bool:
    return call.complete and is_object(call.arguments)


def text_of(content: Any) -> str:
    """The text of a message, whether it is one string or a list of parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


# The size of the context


async def context_of(upstream: Upstream, model: str) -> int | None:
    """How many tokens the model takes, if its server tells: there are as many ways as servers."""
    entries = upstream.listed.entries or ()
    entry = next((entry for entry in entries if entry["id"] == model), {})
    if (size := size_in(entry)) is not None or upstream.settings.api_version:
        return size
    root = upstream.endpoint.address.url.removesuffix("/v1")
    props = await fetched(upstream.endpoint, f"{root}/props")  # llama.cpp
    if (size := size_in(props) or size_in(props.get("default_generation_settings"))) is not None:
        return size
    running = await fetched(upstream.endpoint, f"{root}/api/ps")  # Ollama
    for each in running.get("models") or ():
        if isinstance(each, dict) and each.get("name") in (model, f"{model}:latest"):
            return size_in(each)
    return size_in(await fetched(upstream.endpoint, f"{root}/api/v0/models/{model}"))  # LM Studio


def size_in(found: Any) -> int | None:
    """A size of a context in what a server says of a model."""
    whole: Json = found if isinstance(found, dict) else {}
    meta = whole.get("meta")
    known: Json = whole | (meta if isinstance(meta, dict) else {})
    sizes = (known.get(name) for name in CONTEXT_FIELDS)
    return next((size for size in sizes if isinstance(size, int) and size > 0), None)


async def fetched(endpoint: Endpoint, url: str) -> Json:
    """The JSON object at a URL beside the API; an empty one where there is none."""
    raw = b""
    with anyio.move_on_after(FETCH_SECONDS):
        try:
            reply = await endpoint.forward("GET", url, [], None)
        except InferenceError:
            return {}
        try:
            if reply.status == 200:
                raw = b"".join([piece async for piece in reply])
        except InferenceError:
            return {}
        finally:
            await reply.aclose()
    try:
        value = decode(raw)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


# The MCP servers


def look_at_commands(servers: Mapping[str, McpServer], area: Area) -> None:
    """Whether the programs that start MCP servers are there."""
    for program, users in programs_of(servers).items():
        names = ", ".join(users)
        path = servers[users[0]].env.get("PATH")
        found = shutil.which(program, path=path.get_secret_value() if path else None)
        if found is None:
            advice = RUNTIMES.get(program, "install it, or give its full path")
            area.fail(f"{program} is not found; needed by {names}", advice)
        else:
            area.ok(f"{program}: {found}")


def programs_of(servers: Mapping[str, McpServer]) -> dict[str, list[str]]:
    """The programs by name, with the servers that need them. Paths are the servers' business."""
    needed: dict[str, list[str]] = {}
    for name, server in servers.items():
        program = "docker" if server.image else server.command or ""
        if server.disabled or server.problem or not program or "/" in program:
            continue
        for each in (program, ALSO_NEEDED.get(program)):
            if each:
                needed.setdefault(each, []).append(name)
    return needed


def look_at_connection(connection: Connection, area: Area) -> None:
    status, name = connection.status(), connection.name
    match connection.state:
        case State.CONNECTED:
            words = f"{name}: connected over {status['transport']} ({status['protocol']})"
            counts = ", ".join(f"{kind}: {status[kind]}" for kind in KINDS)
            (area.ok if status["tools"] else area.warn)(f"{words}; {counts}")
            look_at_oddities(status, area)
        case State.DISABLED if not connection.settings.problem:
            area.ok(f"{name}: disabled in the configuration")
        case state:
            error = status["error"] or "the first attempt to connect has not ended"
            last_words = " | ".join(status["stderr"][-LAST_WORDS:])
            hint = f"it wrote: {last_words}" if last_words else HINTS.get(state, "")
            if last_words and last_words in error:
                hint = ""
            area.fail(f"{name}: {state}: {error}", hint)


def look_at_oddities(status: Json, area: Area) -> None:
    """What a connected server does that it should not."""
    name = status["name"]
    for tool in status["skipped_tools"]:
        area.warn(f"{name}: tool {tool['name']} is left out: {tool['reason']}")
    if lines := status["noise_lines"]:
        area.warn(f"{name}: {lines} lines on its standard output were no MCP messages")


def look_at_tools(bridge: Bridge, contexts: Iterable[Context], area: Area) -> None:
    """How many there are, whether names collide, and whether they fit into a context."""
    view = bridge.catalog.view()
    count = len(view.entries)
    tokens = estimated_tokens(view.definitions("openai"))
    words = f"tools: {count}, about {tokens:,} tokens in each question to a model"
    if count > MOST_TOOLS:
        area.warn(f"{words}; many servers take at most {MOST_TOOLS}", FEWER_TOOLS)
    else:
        area.ok(words)
    for name, owners in bridge.catalog.collisions.items():
        others = ", ".join(owners[1:])
        area.warn(f"{name} is a tool of {owners[0]} and of {others}, where it gets a prefix")
    for context in contexts:
        share = tokens / context.tokens
        words = f"the tools take {share:.0%} of the {context.tokens:,} tokens of {context.model}"
        if share > NO_ROOM:
            area.fail(words, FEWER_TOOLS)
        elif share > LITTLE_ROOM:
            area.warn(words, FEWER_TOOLS)
        else:
            area.ok(words)
