"""A client that shows what is really on the wire: raw JSON over a WebSocket, quick to open."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import anyio
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    LOG_LEVEL_META_KEY,
    PROTOCOL_VERSION_META_KEY,
)

from mcp_bridge.types import Json
from mcp_bridge.websocket import ClientSocket, connect
from tests.mcp_server.running import PATIENCE, House

NEW, OLD = "2026-07-28", "2025-11-25"


class Refused(Exception):
    """The answer was an error, as it came."""

    def __init__(self, error: Json) -> None:
        super().__init__(str(error))
        self.error = error


class Wire:
    """A raw client. `told` collects notifications."""

    def __init__(self, socket: ClientSocket, version: str, capabilities: Json) -> None:
        self._socket = socket
        self._messages = socket.messages()
        self._ids = count(1)
        self._answers: dict[Any, Json] = {}
        self.version = version
        self.capabilities = capabilities
        self.told: list[tuple[str, Json]] = []
        self.greeting: Json = {}

    @property
    def modern(self) -> bool:
        return self.version == NEW

    async def say(self, message: Json) -> None:
        await self._socket.send(json.dumps({"jsonrpc": "2.0", **message}))

    async def hello(self) -> None:
        if self.modern:
            self.greeting = await self.ask("server/discover")
            return
        info = {"name": "wire", "version": "1"}
        params = {"protocolVersion": self.version, "capabilities": self.capabilities}
        self.greeting = await self.ask("initialize", {**params, "clientInfo": info})
        await self.say({"method": "notifications/initialized"})
        await self.ask("ping")  # what was said before has been heard

    async def send(self, method: str, params: Json | None = None) -> int:
        number = next(self._ids)
        params = dict(params or {})
        if self.modern:
            envelope = {
                PROTOCOL_VERSION_META_KEY: self.version,
                CLIENT_INFO_META_KEY: {"name": "wire", "version": "1"},
                CLIENT_CAPABILITIES_META_KEY: self.capabilities,
                LOG_LEVEL_META_KEY: "debug",
            }
            params["_meta"] = {**envelope, **params.get("_meta", {})}
        await self.say({"id": number, "method": method, "params": params})
        return number

    async def ask(self, method: str, params: Json | None = None) -> Json:
        """The raw result of a request."""
        number = await self.send(method, params)
        with anyio.fail_after(PATIENCE):
            while number not in self._answers:
                await self.hear()
        answer = self._answers.pop(number)
        if "error" in answer:
            raise Refused(answer["error"])
        result: Json = answer["result"]
        return result

    async def call(self, name: str, **arguments: Any) -> Json:
        return await self.ask("tools/call", {"name": name, "arguments": arguments})

    async def hear(self) -> Json:
        """The next message, whatever it is."""
        message: Json = json.loads(await anext(self._messages))
        if "method" in message and "id" not in message:
            self.told.append((message["method"], message.get("params", {})))
        elif "method" not in message:
            self._answers[message["id"]] = message
        return message

    async def until_told(self, method: str) -> Json:
        """The params of the next such notification; it is forgotten then."""
        with anyio.fail_after(PATIENCE):
            while True:
                for told in self.told:
                    if told[0] == method:
                        self.told.remove(told)
                        return told[1]
                await self.hear()


@asynccontextmanager
async def wire(
    house: House, version: str = OLD, capabilities: Json | None = None, key: str | None = None
) -> AsyncGenerator[Wire]:
    """A raw client that has said hello."""
    url = f"{house.url.replace('http', 'ws')}/mcp-server/ws"
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with connect(url, headers=headers, max_bytes=None, open_seconds=5) as socket:
        client = Wire(socket, version, capabilities or {})
        await client.hello()
        yield client
