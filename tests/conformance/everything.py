"""The server that the conformance suite wants to see, in both eras, on raw JSON.

It has every tool, prompt and resource that the suite's scenarios name. What it needs to know, it
asks the way of the era: through the back channel, or with a result that requires input.
"""

import hashlib
import hmac
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from mcp.server import Server
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    INVALID_PARAMS,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    EmptyResult,
    PaginatedRequestParams,
    RequestParams,
    SetLevelRequestParams,
    SubscribeRequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from starlette.applications import Starlette
from starlette.routing import Route

from mcp_bridge.types import Json

Context = ServerRequestContext[Any, Any]
SECRET = b"for tests"
PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAF"
    "BQIAX8jx0gAAAABJRU5ErkJggg=="
)
WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA="
ANYTHING: Json = {"type": "object"}

SCHEMA_2020: Json = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


class NeedsInput(Exception):
    """The client must be asked first; `result` asks it."""

    def __init__(self, result: Json) -> None:
        super().__init__("input required")
        self.result = result


@dataclass
class Witness:
    """What happened in the server."""

    began: anyio.Event = field(default_factory=anyio.Event)
    cancelled: anyio.Event = field(default_factory=anyio.Event)


@dataclass
class Call:
    """One request: who asks, with what, and what it has answered already."""

    context: Context
    params: Json
    witness: Witness

    @property
    def modern(self) -> bool:
        return self.context.protocol_version in MODERN_PROTOCOL_VERSIONS

    @property
    def arguments(self) -> Json:
        return self.params.get("arguments") or {}

    @property
    def capabilities(self) -> Json:
        found: Json = (self.params.get("_meta") or {}).get(CLIENT_CAPABILITIES_META_KEY, {})
        return found

    async def ask(self, questions: dict[str, tuple[str, Json]], state: str | None = None) -> Json:
        """The answers to these questions, by their keys."""
        if not self.modern:
            return {
                key: await self.context.session._request_outbound.send_raw_request(method, params)
                for key, (method, params) in questions.items()
            }
        answers = self.params.get("inputResponses") or {}
        if all(isinstance(answers.get(key), dict) for key in questions):
            found: Json = answers
            return found
        asked = {k: {"method": m, "params": p} for k, (m, p) in questions.items()}
        result: Json = {"resultType": "input_required", "inputRequests": asked}
        if state is not None:
            result["requestState"] = signed(state)
        raise NeedsInput(result)

    @property
    def state(self) -> str | None:
        """The state that came back, if it is ours."""
        given = self.params.get("requestState")
        if given is None:
            return None
        text, _, _ = str(given).rpartition("|")
        if signed(text) != given:
            raise MCPError(INVALID_PARAMS, "requestState was changed")
        return text

    async def log(self, data: str) -> None:
        meta = self.params.get("_meta") or {}
        if self.modern and "io.modelcontextprotocol/logLevel" not in meta:
            return
        channel = self.context.session._request_outbound
        await channel.notify("notifications/message", {"level": "info", "data": data})


def signed(text: str) -> str:
    return f"{text}|{hmac.new(SECRET, text.encode(), hashlib.sha256).hexdigest()}"


def texts(*lines: str) -> Json:
    return {"content": [{"type": "text", "text": line} for line in lines]}


def form(message: str, properties: Json, required: tuple[str, ...] = ()) -> tuple[str, Json]:
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return "elicitation/create", {"message": message, "requestedSchema": schema}


def sampling(text: str, tokens: int = 100) -> tuple[str, Json]:
    message = {"role": "user", "content": {"type": "text", "text": text}}
    return "sampling/createMessage", {"messages": [message], "maxTokens": tokens}


ROOTS: tuple[str, Json] = ("roots/list", {})
NAME = form("What is your name?", {"name": {"type": "string"}}, ("name",))
Run = Callable[[Call], Awaitable[Json]]
TOOLS: dict[str, tuple[Run, Json]] = {}


def tool(schema: Json = ANYTHING) -> Callable[[Run], Run]:
    def register(run: Run) -> Run:
        TOOLS[run.__name__] = (run, schema)
        return run

    return register


@tool()
async def test_simple_text(call: Call) -> Json:
    return texts("This is a simple text response for testing.")


@tool()
async def test_image_content(call: Call) -> Json:
    return {"content": [{"type": "image", "data": PNG, "mimeType": "image/png"}]}


@tool()
async def test_audio_content(call: Call) -> Json:
    return {"content": [{"type": "audio", "data": WAV, "mimeType": "audio/wav"}]}


def embedded(uri: str, mime: str, text: str) -> Json:
    return {"type": "resource", "resource": {"uri": uri, "mimeType": mime, "text": text}}


@tool()
async def test_embedded_resource(call: Call) -> Json:
    text = "This is an embedded resource content."
    return {"content": [embedded("test://embedded-resource", "text/plain", text)]}


@tool()
async def test_multiple_content_types(call: Call) -> Json:
    return {
        "content": [
            {"type": "text", "text": "Multiple content types test:"},
            {"type": "image", "data": PNG, "mimeType": "image/png"},
            embedded("test://mixed-content-resource", "application/json", '{"value":123}'),
        ]
    }


@tool()
async def test_tool_with_logging(call: Call) -> Json:
    for line in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await call.log(line)
    return texts("logged")


@tool()
async def test_logging_tool(call: Call) -> Json:
    await call.log("logged")
    return texts("logged")


@tool()
async def test_error_handling(call: Call) -> Json:
    return {**texts("This tool intentionally returns an error for testing"), "isError": True}


@tool()
async def test_tool_with_progress(call: Call) -> Json:
    for step in (0, 50, 100):
        await call.context.session.report_progress(step, 100)
        # The TypeScript SDK loses progress that it reads together with the answer (SSE).
        await anyio.sleep(0.02)
    return texts("done")


@tool({"type": "object", "properties": {"prompt": {"type": "string"}}, "required": ["prompt"]})
async def test_sampling(call: Call) -> Json:
    answers = await call.ask({"sample": sampling(call.arguments["prompt"])})
    return texts(f"LLM response: {answers['sample']['content']['text']}")


@tool({"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]})
async def test_elicitation(call: Call) -> Json:
    properties = {"username": {"type": "string"}, "email": {"type": "string"}}
    question = form(call.arguments["message"], properties, ("username", "email"))
    answers = await call.ask({"user": question})
    return texts(f"User response: {json.dumps(answers['user'])}")


@tool()
async def test_streaming_elicitation(call: Call) -> Json:
    answers = await call.ask({"user_name": NAME})
    return texts(json.dumps(answers["user_name"]))


@tool()
async def test_elicitation_sep1034_defaults(call: Call) -> Json:
    status = {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"}
    properties: Json = {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": status,
        "verified": {"type": "boolean", "default": True},
    }
    answer = (await call.ask({"form": form("Please check", properties)}))["form"]
    return texts(f"Elicitation completed: action={answer['action']}, content={answer}")


@tool()
async def test_elicitation_sep1330_enums(call: Call) -> Json:
    plain = ["option1", "option2", "option3"]
    titled = [{"const": f"value{n}", "title": f"Choice {n}"} for n in (1, 2, 3)]
    properties: Json = {
        "untitledSingle": {"type": "string", "enum": plain},
        "titledSingle": {"type": "string", "oneOf": titled},
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": plain}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled}},
    }
    answer = (await call.ask({"form": form("Please choose", properties)}))["form"]
    return texts(f"Elicitation completed: action={answer['action']}, content={answer}")


@tool(SCHEMA_2020)
async def json_schema_2020_12_tool(call: Call) -> Json:
    return texts("seen")


@tool(
    {
        "type": "object",
        "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "query": {"type": "string"},
        },
        "required": ["region", "query"],
    }
)
async def test_custom_header(call: Call) -> Json:
    return texts(call.arguments["region"])


@tool()
async def test_missing_capability(call: Call) -> Json:
    if call.modern and "sampling" not in call.capabilities:
        raise MCPError(
            MISSING_REQUIRED_CLIENT_CAPABILITY,
            "sampling is required",
            {"requiredCapabilities": {"sampling": {}}},
        )
    return texts("sampling is there")


@tool()
async def test_input_required_result_elicitation(call: Call) -> Json:
    answers = await call.ask({"user_name": NAME})
    return texts(f"Hello, {(answers['user_name'].get('content') or {}).get('name')}!")


@tool()
async def test_input_required_result_sampling(call: Call) -> Json:
    answers = await call.ask({"capital_question": sampling("What is the capital of France?")})
    return texts(json.dumps(answers["capital_question"]))


@tool()
async def test_input_required_result_list_roots(call: Call) -> Json:
    answers = await call.ask({"client_roots": ROOTS})
    return texts(json.dumps(answers["client_roots"]))


@tool()
async def test_input_required_result_request_state(call: Call) -> Json:
    state = call.state
    confirm = form("Please confirm", {"ok": {"type": "boolean"}}, ("ok",))
    await call.ask({"confirm": confirm}, "state")
    return texts("state-ok" if state == "state" or not call.modern else "state missing")


@tool()
async def test_input_required_result_tampered_state(call: Call) -> Json:
    return await test_input_required_result_request_state(call)


@tool()
async def test_input_required_result_multiple_inputs(call: Call) -> Json:
    greeting = sampling("Generate a greeting", 50)
    questions = {"user_name": NAME, "greeting": greeting, "client_roots": ROOTS}
    return texts(json.dumps(await call.ask(questions, "several")))


@tool()
async def test_input_required_result_multi_round(call: Call) -> Json:
    colour = form("Step 2: What is your favorite color?", {"color": {"type": "string"}})
    if call.state != "round-2":
        step = form("Step 1: What is your name?", {"name": {"type": "string"}}, ("name",))
        await call.ask({"step1": step}, "round-1")
    return texts(json.dumps(await call.ask({"step2": colour}, "round-2")))


@tool()
async def test_input_required_result_capabilities(call: Call) -> Json:
    questions: dict[str, tuple[str, Json]] = {}
    if "sampling" in call.capabilities:
        questions["sample"] = sampling("Anything")
    if "elicitation" in call.capabilities:
        questions["user_name"] = NAME
    return texts(json.dumps(await call.ask(questions)))


@tool()
async def ask_to_open_a_page(call: Call) -> Json:
    params = {"mode": "url", "message": "Log in there", "url": "https://login.example/"}
    if not call.modern:
        params["elicitationId"] = "login-1"
    answers = await call.ask({"page": ("elicitation/create", params)})
    return texts(json.dumps(answers["page"]))


@tool()
async def wait_for_ever(call: Call) -> Json:
    call.witness.began.set()
    try:
        await anyio.sleep_forever()
    finally:
        call.witness.cancelled.set()
    return texts("never")


def says(role: str, content: Json) -> Json:
    return {"role": role, "content": content}


async def prompt(call: Call) -> Json:
    text = {"type": "text", "text": "Please look at the above."}
    match call.params["name"]:
        case "test_simple_prompt":
            simple = {"type": "text", "text": "This is a simple prompt for testing."}
            return {"messages": [says("user", simple)]}
        case "test_prompt_with_arguments":
            one, two = call.arguments["arg1"], call.arguments["arg2"]
            text = {"type": "text", "text": f"Prompt with arguments: arg1='{one}', arg2='{two}'"}
            return {"messages": [says("user", text)]}
        case "test_prompt_with_embedded_resource":
            uri = call.arguments["resourceUri"]
            resource = embedded(uri, "text/plain", "Embedded resource content for testing.")
            return {"messages": [says("user", resource), says("user", text)]}
        case "test_prompt_with_image":
            image = {"type": "image", "data": PNG, "mimeType": "image/png"}
            return {"messages": [says("user", image), says("user", text)]}
        case "test_input_required_result_prompt":
            question = form("What context?", {"context": {"type": "string"}}, ("context",))
            answers = await call.ask({"user_context": question})
            return {"messages": [says("user", {"type": "text", "text": json.dumps(answers)})]}
        case name:
            raise MCPError(INVALID_PARAMS, f"Unknown prompt: {name}")


PROMPTS: dict[str, tuple[str, ...]] = {
    "test_simple_prompt": (),
    "test_prompt_with_arguments": ("arg1", "arg2"),
    "test_prompt_with_embedded_resource": ("resourceUri",),
    "test_prompt_with_image": (),
    "test_input_required_result_prompt": (),
}
RESOURCES: dict[str, Json] = {
    "test://static-text": {
        "mimeType": "text/plain",
        "text": "This is the content of the static text resource.",
    },
    "test://static-binary": {"mimeType": "image/png", "blob": PNG},
    "test://watched-resource": {"mimeType": "text/plain", "text": "Watched"},
}


async def read(call: Call) -> Json:
    uri: str = call.params["uri"]
    if uri in RESOURCES:
        return {"contents": [{"uri": uri, **RESOURCES[uri]}]}
    if uri.startswith("test://template/") and uri.endswith("/data"):
        number = uri.split("/")[3]
        data = {"id": number, "templateTest": True, "data": f"Data for ID: {number}"}
        content = {"uri": uri, "mimeType": "application/json", "text": json.dumps(data)}
        return {"contents": [content]}
    raise MCPError(INVALID_PARAMS, "Resource not found", {"uri": uri})


def lists(method: str) -> Json | None:
    match method:
        case "tools/list":
            named = [
                {"name": name, "description": name, "inputSchema": schema}
                for name, (_, schema) in TOOLS.items()
            ]
            return {"tools": named}
        case "prompts/list":
            prompts = [
                {
                    "name": name,
                    "description": name,
                    "arguments": [{"name": a, "required": True} for a in arguments],
                }
                for name, arguments in PROMPTS.items()
            ]
            return {"prompts": prompts}
        case "resources/list":
            resources = [
                {"uri": uri, "name": uri, "description": uri, "mimeType": r["mimeType"]}
                for uri, r in RESOURCES.items()
            ]
            return {"resources": resources}
        case "resources/templates/list":
            template = {"uriTemplate": "test://template/{id}/data", "name": "data"}
            return {"resourceTemplates": [template]}
    return None


async def result_of(call: Call) -> Json | None:
    match call.context.method:
        case "tools/call":
            found = TOOLS.get(call.params["name"])
            if found is None:
                raise MCPError(INVALID_PARAMS, f"Unknown tool: {call.params['name']}")
            return await found[0](call)
        case "prompts/get":
            return await prompt(call)
        case "resources/read":
            return await read(call)
        case "completion/complete":
            return {"completion": {"values": ["paris", "park"], "total": 2, "hasMore": False}}
        case "resources/subscribe" | "resources/unsubscribe" | "logging/setLevel":
            return {}
        case method:
            return lists(method)


async def answered(witness: Witness, ctx: Context, call_next: CallNext) -> HandlerResult:
    """Answer everything but what the protocol itself is about."""
    if ctx.request_id is None:
        return await call_next(ctx)
    call = Call(ctx, dict(ctx.params or {}), witness)
    try:
        result = await result_of(call)
    except NeedsInput as exc:
        result = exc.result
    if result is None:
        return await call_next(ctx)
    if not call.modern:
        return result
    return {"resultType": "complete", "ttlMs": 1000, "cacheScope": "public", **result}


def everything(witness: Witness) -> Server[Any]:
    """The server. Handlers that never run are there for the capabilities that follow from them."""

    async def answer(ctx: Context, call_next: CallNext) -> HandlerResult:
        return await answered(witness, ctx, call_next)

    async def never(context: Context, params: Any) -> EmptyResult:
        raise AssertionError

    listen = ListenHandler(InMemorySubscriptionBus())
    server: Server[Any] = Server("everything", version="1", on_subscriptions_listen=listen)
    kinds: dict[str, Any] = {
        "tools/list": PaginatedRequestParams,
        "prompts/list": PaginatedRequestParams,
        "resources/list": PaginatedRequestParams,
        "resources/subscribe": SubscribeRequestParams,
        "completion/complete": RequestParams,
        "logging/setLevel": SetLevelRequestParams,
    }
    for method, params in kinds.items():
        server.add_request_handler(method, params, never)
    server.middleware.append(answer)
    return server


@asynccontextmanager
async def everything_app(witness: Witness | None = None) -> AsyncGenerator[Starlette]:
    """The server over streamable HTTP, at /mcp."""
    manager = StreamableHTTPSessionManager(everything(witness or Witness()))
    async with manager.run():
        yield Starlette(routes=[Route("/mcp", StreamableHTTPASGIApp(manager))])
