"""Prompts and resources in a chat, without any support in the client.

A request names them in its `mcp` object (or a toolset names its prompt), and their messages open
the conversation: after the system messages, before everything else. They are put there anew in
every request, so they stay in place while the conversation grows, and prompt caches hold. Nothing
of them is shown to the client.

With `tools.read_resource` the model itself gets a tool that reads resources.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from difflib import get_close_matches
from itertools import takewhile

from mcp.shared.uri_template import InvalidUriTemplate, UriTemplate
from mcp_types import INVALID_PARAMS

from mcp_bridge.agent.parts import content_of, parts_of, text_part
from mcp_bridge.errors import RequestError, SourceRefused
from mcp_bridge.mcp_client.connection import Connection
from mcp_bridge.policy.access import Selection
from mcp_bridge.tools.catalog import Entry, View
from mcp_bridge.tools.source import CallContext, Tool, text_result
from mcp_bridge.types import Json, frozen

NAME = "mcp_bridge"
READ = "read_resource"
MOST_LISTED = 50
SYSTEM = ("system", "developer")


# What a request wants


@frozen
class Wanted:
    """A prompt and resources that a request wants in its conversation."""

    prompt: str | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)
    resources: tuple[str, ...] = ()

    @classmethod
    def of(cls, extension: Json) -> "Wanted":
        """Read `prompt` (a name, or an object with `name` and `arguments`) and `resources`.

        Raises:
            RequestError: 400 with `param`.
        """
        prompt = extension.get("prompt")
        given = {"name": prompt} if isinstance(prompt, str) else prompt
        if given is not None and not isinstance(given, dict):
            raise wrong("mcp.prompt", "a name, or an object with name and arguments")
        given = given or {}
        name, arguments = given.get("name"), given.get("arguments") or {}
        if prompt is not None and not (isinstance(name, str) and name):
            raise wrong("mcp.prompt.name", "the name of a prompt")
        if not isinstance(arguments, dict):
            raise wrong("mcp.prompt.arguments", "an object")
        for key, value in arguments.items():
            if not isinstance(value, str):
                raise wrong(f"mcp.prompt.arguments.{key}", "a string: prompts take texts only")
        return cls(name, arguments, uris(extension.get("resources")))

    def or_else(self, default: "Wanted") -> "Wanted":
        """The same, with the default's prompt unless it names one itself."""
        if self.prompt is not None:
            return self
        return Wanted(default.prompt, default.arguments, self.resources)


NOTHING_WANTED = Wanted()


def uris(value: object) -> tuple[str, ...]:
    found = [value] if isinstance(value, str) else value or []
    if not isinstance(found, list) or not all(isinstance(uri, str) and uri for uri in found):
        raise wrong("mcp.resources", "a list of URIs")
    return tuple(found)


def wrong(param: str, expected: str) -> RequestError:
    return RequestError(f"{param} must be {expected}", param=param, code="invalid_value")


# Where it is


class Library:
    """The prompts and resources that a caller sees, of all servers in their order."""

    def __init__(self, servers: Iterable[Connection], selections: Sequence[Selection] = ()) -> None:
        self._servers = [
            server
            for server in servers
            if all(selection.allows_server(server.name) for selection in selections)
        ]

    async def opening(self, wanted: Wanted, context: CallContext, *, vision: bool) -> list[Json]:
        """The messages that open the conversation.

        Raises:
            RequestError: 404 or 400 with `param`, what is wanted is not there, or not like this.
            SourceError: its server could not answer.
        """
        messages: list[Json] = []
        if wanted.prompt is not None:
            result = await self.prompt(wanted.prompt, wanted.arguments, context)
            messages += prompt_messages(result, vision=vision)
        for number, uri in enumerate(wanted.resources):
            try:
                result = await self.read(uri, context)
            except RequestError as exc:
                exc.param = f"mcp.resources[{number}]"
                raise
            messages.append(resource_message(uri, result, vision=vision))
        return messages

    # Prompts

    async def prompt(self, name: str, arguments: Mapping[str, str], context: CallContext) -> Json:
        """The `GetPromptResult` of a prompt; `server__name` finds the one of that server.

        Raises:
            RequestError: 404, there is none for this caller; 400, the arguments are not right.
            SourceError: its server could not answer.
        """
        server, prompt = self._find_prompt(name)
        check_arguments(prompt, arguments)
        params: Json = {"name": prompt["name"], "arguments": dict(arguments)}
        try:
            return await server.request("prompts/get", params, context)
        except SourceRefused as exc:
            if exc.rpc_code != INVALID_PARAMS:
                raise
            raise RequestError(
                f"the prompt {name!r} refuses its arguments: {exc.message}",
                param="mcp.prompt.arguments",
                code="invalid_value",
            ) from exc

    def _find_prompt(self, name: str) -> tuple[Connection, Json]:
        names: list[str] = []
        for server in self._servers:
            for prompt in server.prompts:
                if name in (prompt["name"], f"{server.name}__{prompt['name']}"):
                    return server, prompt
                names.append(prompt["name"])
        raise not_found("prompt", name, "mcp.prompt.name", get_close_matches(name, names))

    # Resources

    @property
    def resources(self) -> list[Json]:
        """What can be read, as it is listed."""
        return [resource for server in self._servers for resource in server.resources]

    @property
    def templates(self) -> list[Json]:
        return [template for server in self._servers for template in server.resource_templates]

    async def read(self, uri: str, context: CallContext) -> Json:
        """The `ReadResourceResult` from the first server that has it, the likeliest asked first.

        Raises:
            RequestError: 404, no server that this caller sees has it.
            SourceError: its server could not answer.
        """
        refusal: SourceRefused | None = None
        for server in likely(uri, self._servers):
            try:
                return await server.request("resources/read", {"uri": uri}, context)
            except SourceRefused as exc:
                refusal = refusal or exc
        raise not_found("resource", uri, "mcp.resources", []) from refusal


def check_arguments(prompt: Json, arguments: Mapping[str, str]) -> None:
    """Servers answer a missing argument in many ways, so it is found before they are asked."""
    for argument in prompt.get("arguments") or ():
        if not isinstance(argument, dict) or argument.get("required") is not True:
            continue
        if (name := argument.get("name")) not in arguments:
            param = f"mcp.prompt.arguments.{name}"
            raise RequestError(
                f"{param} is missing: the prompt {prompt['name']!r} needs it",
                param=param,
                code="invalid_value",
            )


def likely(uri: str, servers: Iterable[Connection]) -> list[Connection]:
    """Those that list a resource; else those with a template for it; else all that have any."""
    able = [server for server in servers if "resources" in server.capabilities]
    listing = [s for s in able if any(r["uri"] == uri for r in s.resources)]
    return listing or [s for s in able if has_template_for(uri, s)] or able


def has_template_for(uri: str, server: Connection) -> bool:
    for template in server.resource_templates:
        try:
            if UriTemplate.parse(template["uriTemplate"]).match(uri) is not None:
                return True
        except InvalidUriTemplate:
            continue  # its server reads it by rules of its own; it cannot be matched here
    return False


def not_found(what: str, name: str, param: str, close: list[str]) -> RequestError:
    """Not there and not allowed are the same answer."""
    hint = f"; did you mean {', '.join(close)}?" if close else ""
    return RequestError(
        f"there is no {what} {name!r}{hint}", param=param, code=f"{what}_not_found", status=404
    )


# How it reads in a chat


def prompt_messages(result: Json, *, vision: bool) -> list[Json]:
    """The messages of a `GetPromptResult`; an assistant cannot show images, they are named."""
    messages = result.get("messages")
    found: list[Json] = []
    for message in messages if isinstance(messages, list) else []:
        if isinstance(message, dict):
            role = "assistant" if message.get("role") == "assistant" else "user"
            if parts := parts_of(message.get("content"), vision=vision and role == "user"):
                found.append({"role": role, "content": content_of(parts)})
    return found


def resource_message(uri: str, result: Json, *, vision: bool) -> Json:
    """The contents of a `ReadResourceResult` as a message of the user."""
    parts = parts_of(embedded(result), vision=vision) or [text_part(f"[resource {uri}: empty]")]
    return {"role": "user", "content": content_of(parts)}


def embedded(result: Json) -> list[Json]:
    """The contents of a `ReadResourceResult` as content blocks."""
    contents = result.get("contents")
    items = contents if isinstance(contents, list) else []
    return [{"type": "resource", "resource": item} for item in items]


def opened(messages: Sequence[Json], opening: Sequence[Json]) -> list[Json]:
    """The conversation with `opening` after its system messages.

    Neighbours of the user's become one message: many chat templates want the roles to alternate.
    """
    if not opening:
        return list(messages)
    system = list(takewhile(lambda message: message.get("role") in SYSTEM, messages))
    rest = list(messages[len(system) :])
    follower = rest[:1] if rest and rest[0].get("role") == "user" else []
    return [*system, *alternating([*opening, *follower]), *rest[len(follower) :]]


def alternating(messages: Sequence[Json]) -> list[Json]:
    found: list[Json] = []
    for message in messages:
        if found and found[-1]["role"] == message["role"] == "user":
            content = joined(found[-1].get("content"), message.get("content"))
            found[-1] = {**message, "content": content}
        else:
            found.append(message)
    return found


def joined(first: object, second: object) -> str | list[Json]:
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return [*as_parts(first), *as_parts(second)]


def as_parts(content: object) -> list[Json]:
    if isinstance(content, list):
        return content
    return [text_part(content)] if isinstance(content, str) and content else []


# What the model may read by itself


class ResourceReader:
    """The tool `read_resource`: a source like any other, for the part that one caller sees."""

    name = NAME
    parallel = True

    def __init__(self, library: Library) -> None:
        self._library = library
        self.tools = (Tool(NAME, READ, definition(library)),)

    async def call(self, name: str, arguments: Json, context: CallContext) -> Json:
        try:
            result = await self._library.read(str(arguments.get("uri")), context)
        except RequestError as exc:
            return text_result(exc.message, is_error=True)
        return {"content": embedded(result)}


def with_reader(view: View, library: Library) -> View:
    """The view with `read_resource`, when there is anything to read."""
    if not library.resources and not library.templates:
        return view
    reader = ResourceReader(library)
    name = READ if view.find(READ) is None else f"{NAME}__{READ}"
    return view.plus(Entry(name, reader.tools[0], reader))


def definition(library: Library) -> Json:
    lines = [line(r, "uri") for r in library.resources[:MOST_LISTED]]
    lines += [line(t, "uriTemplate") for t in library.templates[:MOST_LISTED]]
    more = len(library.resources) + len(library.templates) - len(lines)
    lines += [f"- and {more} more"] if more else []
    return {
        "name": READ,
        "description": "Read a resource by its URI. "
        "Where a URI has parts in {braces}, put values in their place. There are:\n"
        + "\n".join(lines),
        "inputSchema": {
            "type": "object",
            "properties": {"uri": {"type": "string", "description": "The URI."}},
            "required": ["uri"],
            "additionalProperties": False,
        },
        "annotations": {"readOnlyHint": True},
    }


def line(item: Json, key: str) -> str:
    words = [str(item[field]) for field in ("title", "name", "description") if item.get(field)]
    said = ": ".join(dict.fromkeys(words))
    return f"- {item[key]} ({said})" if said else f"- {item[key]}"
