"""Raw JSON as clients get it: what the bridge says of itself, lists in pages, results by era."""

import base64
import binascii
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS

from mcp_bridge.mcp_server.client import Client
from mcp_bridge.mcp_server.visit import PAGE, Offer
from mcp_bridge.types import Json

LISTS = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}
NEW_ERA_FIELDS = frozenset({"resultType", "ttlMs", "cacheScope"})
OLD_ERA_CANNOT = NEW_ERA_FIELDS | {"structuredContent"}


def page_of(client: Client, offer: Offer, method: str, start: int) -> Json:
    """One page of a list, from where a cursor points."""
    items = offer.lists[method]
    shown = items[start : start + PAGE]
    page: Json = {LISTS[method]: [for_era(client, method, item) for item in shown]}
    if start + PAGE < len(items):
        page["nextCursor"] = cursor(start + PAGE)
    return page


def introduction(offer: Offer) -> Json:
    """What the bridge says of itself: it can do everything, for servers come and go."""
    capabilities: Json = {
        "tools": {"listChanged": True},
        "prompts": {"listChanged": True},
        "resources": {"subscribe": True, "listChanged": True},
        "completions": {},
        "logging": {},
    }
    for part in ("extensions", "experimental", "tasks"):
        merged: Json = {}
        for connection in reversed(offer.connections):
            found = connection.capabilities.get(part)
            merged |= found if isinstance(found, dict) else {}
        if merged:
            capabilities[part] = merged
    capabilities.get("tasks", {}).pop("list", None)  # it would show the tasks of others
    said = [(c.name, c.instructions) for c in offer.connections if c.instructions]
    if not said:
        return {"capabilities": capabilities}
    alone = len(offer.connections) == 1
    texts = [text if alone else f"{name}: {text}" for name, text in said]
    return {"capabilities": capabilities, "instructions": "\n\n".join(texts)}


def for_era(client: Client, method: str, item: Json) -> Json:
    """An item of a list as the client's era can read it."""
    if client.modern or method != "tools/list" or "outputSchema" not in item:
        return item
    schema = item["outputSchema"]
    if isinstance(schema, dict) and schema.get("type") == "object":
        return item
    return {key: value for key, value in item.items() if key != "outputSchema"}


def for_old_era(result: Json) -> Json:
    """A result without what only the new era has; structured content was an object before."""
    structured = result.get("structuredContent", {})
    unknown = NEW_ERA_FIELDS if isinstance(structured, dict) else OLD_ERA_CANNOT
    if unknown.isdisjoint(result):
        return result
    return {key: value for key, value in result.items() if key not in unknown}


def with_shown_links(result: Json, server: str, offer: Offer) -> Json:
    """A tool's result whose links to resources lead to where this visit finds them."""
    content = result.get("content")
    if not offer.moved or not isinstance(content, list):
        return result
    return {**result, "content": [_shown_link(item, server, offer) for item in content]}


def _shown_link(item: Any, server: str, offer: Offer) -> Any:
    if not isinstance(item, dict):
        return item
    if item.get("type") == "resource" and isinstance(item.get("resource"), dict):
        return {**item, "resource": _shown_link(item["resource"], server, offer)}
    uri = item.get("uri")
    shown = offer.moved.get((server, uri)) if isinstance(uri, str) else None
    return {**item, "uri": shown} if shown else item


def with_shown_uri(result: Json, own: str, shown: str) -> Json:
    """The contents of a resource under the URI that they were asked for."""
    contents = result.get("contents")
    if own == shown or not isinstance(contents, list):
        return result
    renamed = [
        {**item, "uri": shown} if isinstance(item, dict) and item.get("uri") == own else item
        for item in contents
    ]
    return {**result, "contents": renamed}


def unknown_tool(name: str, offer: Offer) -> str:
    close = offer.close_matches(name)
    return f"Unknown tool: {name}" + (f" (did you mean {', '.join(close)}?)" if close else "")


def cursor(start: int) -> str:
    return base64.urlsafe_b64encode(f"from {start}".encode()).decode()


def position(given: object) -> int:
    """Where a cursor of ours points.

    Raises:
        MCPError: it is none of ours.
    """
    if given is None:
        return 0
    try:
        word, _, number = base64.urlsafe_b64decode(str(given)).decode().partition(" ")
        start = int(number)
    except (binascii.Error, ValueError):
        word, start = "", -1
    if word != "from" or start < 0:
        raise MCPError(INVALID_PARAMS, "this cursor is not known: begin the list again")
    return start
