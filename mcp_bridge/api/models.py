"""`GET /v1/models`: every model of every inference server, also as `model@toolset`."""

from fnmatch import fnmatchcase

from starlette.types import Receive, Scope, Send

from mcp_bridge.api.chat import Arrival
from mcp_bridge.api.stream import send_json
from mcp_bridge.bridge import Bridge
from mcp_bridge.config.settings import Settings
from mcp_bridge.errors import RequestError
from mcp_bridge.types import Caller, Json


class ModelsEndpoint:
    """Lists the models."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        bridge: Bridge = scope["app"].state.bridge
        caller = Arrival.of(scope, bridge).caller
        await send_json(send, 200, {"object": "list", "data": await listed(bridge, caller)}, {})


class ModelEndpoint:
    """Shows one model; its id may hold slashes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        bridge: Bridge = scope["app"].state.bridge
        caller = Arrival.of(scope, bridge).caller
        wanted = scope["path_params"]["id"]
        found = next((m for m in await listed(bridge, caller) if m["id"] == wanted), None)
        if found is None:
            raise RequestError(
                f"there is no model {wanted!r}: GET /v1/models lists them",
                param="model",
                code="model_not_found",
                status=404,
            )
        await send_json(send, 200, found, {})


async def listed(bridge: Bridge, caller: Caller) -> list[Json]:
    """The models that `caller` may name: plain ones first, then each with its toolsets."""
    models = await bridge.inference.models()
    return models + aliases(models, caller, bridge.settings)


def aliases(models: list[Json], caller: Caller, settings: Settings) -> list[Json]:
    """`model@toolset` for each toolset that is meant for the model.

    A key that is bound to a toolset gets none: all of its models have that toolset already.
    """
    if caller.toolset is not None:
        return []
    return [
        {**model, "id": f"{model['id']}@{name}", **named(model, name)}
        for model in models
        for name, toolset in settings.toolsets.items()
        if not toolset.models or any(fnmatchcase(model["id"], glob) for glob in toolset.models)
    ]


def named(model: Json, toolset: str) -> Json:
    """The display name that some servers give their models, with the toolset's name."""
    name = model.get("name")
    return {"name": f"{name} @ {toolset}"} if isinstance(name, str) and name else {}
