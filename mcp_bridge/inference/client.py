"""The inference servers behind the bridge, as the conversation and the doors use them.

A question goes to the first server that has its model. It is asked again while that may help, and
when the server is down the next one that has the model is asked; all of this happens before the
first byte of an answer, after which there is no way back. Several servers and one are the same
code: with one, there is nobody to go on to.
"""

import logging
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager
from fnmatch import fnmatchcase
from functools import partial
from types import MappingProxyType

import anyio

from mcp_bridge.config.settings import InferenceServer, SchemaProfile
from mcp_bridge.errors import InferenceError
from mcp_bridge.exact import encode
from mcp_bridge.inference.answer import Answer, Opened, Part
from mcp_bridge.inference.forwarding import Forwarded, Outgoing
from mcp_bridge.inference.models import FETCH_SECONDS, Clock
from mcp_bridge.inference.reading import NOTHING, Item, read
from mcp_bridge.inference.retries import BACKOFF, asked, is_down
from mcp_bridge.inference.routing import Upstream, route, unknown_model
from mcp_bridge.inference.text_calls import TextCalls
from mcp_bridge.inference.transport import Reply
from mcp_bridge.types import Json, frozen

logger = logging.getLogger(__name__)

CHAT = "chat/completions"
NO_HEADERS: Mapping[str, str] = MappingProxyType({})

LIST_SECONDS = 30.0
"""A list of models is shown for so long before it is read again."""

UNKNOWN_SECONDS = 3.0
"""A model is unknown when lists that are no older than this do not have it."""

CHECK_SECONDS = 5.0


@frozen
class Question:
    """A chat request as it is sent: the same for every server and every try."""

    model: str
    body: bytes
    headers: Mapping[str, str]


class Inference:
    """All inference servers of one configuration. Opens nothing before the first request."""

    def __init__(
        self,
        servers: Sequence[InferenceServer],
        *,
        backoff: float = BACKOFF,
        list_seconds: float = FETCH_SECONDS,
        clock: Clock = time.monotonic,
    ) -> None:
        """`backoff`: seconds before a server is asked a second time; then they double.

        `list_seconds`: how long a server may take to list its models.
        """
        self._upstreams = tuple(
            Upstream(server, clock=clock, list_seconds=list_seconds)
            for server in servers
            if server.base_url.strip()
        )
        self._backoff = backoff
        self._warned: set[str] = set()
        """Models whose calls in the text the log has told of."""

    async def aclose(self) -> None:
        """Close what is open, each server's connections with the last request that uses them.

        A conversation that is still going on may ask again: that opens a connection for its time.
        """
        for upstream in self._upstreams:
            await upstream.endpoint.aclose()

    # What is known of a model

    def profile(self, model: str) -> SchemaProfile:
        """The JSON Schema profile of the server that a model is routed to."""
        settings = self._settings(model)
        return settings.schema_profile if settings else "openai"

    def sees_images(self, model: str) -> bool:
        """Whether a model takes images."""
        settings = self._settings(model)
        return settings is not None and any(fnmatchcase(model, glob) for glob in settings.vision)

    def parses_text_calls(self, model: str) -> bool:
        """Whether tool calls that a model writes as text are looked for."""
        settings = self._settings(model)
        globs = settings.text_tool_calls if settings else ()
        return any(fnmatchcase(model, glob) for glob in globs)

    def _settings(self, model: str) -> InferenceServer | None:
        return route(model, self._upstreams)[0].settings if self._upstreams else None

    async def check_model(self, model: str) -> None:
        """Make sure that some server has the model, or may have it.

        Raises:
            RequestError: 404, none has it.
            InferenceError: 503, there is no server.
        """
        self._check_configured()
        for upstream in self._upstreams:
            if upstream.has(model):
                return
        await self._refresh(UNKNOWN_SECONDS)
        if all(upstream.has(model) is False for upstream in self._upstreams):
            raise unknown_model(model, self._upstreams)

    async def models(self) -> list[Json]:
        """The entries of all servers' `/models`, in the order of the servers, each id once.

        Raises:
            InferenceError: there is no server, or none could be read.
        """
        self._check_configured()
        await self._refresh(LIST_SECONDS)
        merged: dict[str, Json] = {}
        for upstream in self._upstreams:
            for entry in upstream.offers():
                merged.setdefault(entry["id"], entry)
        problem = next(filter(None, (upstream.unread for upstream in self._upstreams)), None)
        if not merged and problem:
            raise problem
        return [dict(entry) for entry in merged.values()]

    async def check(self) -> list[Json]:
        """The state of each server: whether it answers, and what is wrong."""
        await self._refresh(CHECK_SECONDS)
        return [upstream.state() for upstream in self._upstreams]

    async def _refresh(self, older_than: float) -> None:
        async with anyio.create_task_group() as tasks:
            for upstream in self._upstreams:
                tasks.start_soon(upstream.refresh, older_than)

    def _check_configured(self) -> None:
        if not self._upstreams:
            raise InferenceError(
                "no inference server is configured: set inference_server.base_url",
                status=503,
                code="no_inference_server",
                unsent=True,
            )

    # Asking

    async def chat(
        self,
        body: Json,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        text_calls_for: Collection[str] = (),
        shown: Collection[str] | None = None,
    ) -> AsyncGenerator[Item]:
        """Ask a model. What gives Opened, then Parts if `body` is to be streamed, then one Answer.

        `text_calls_for` names the tools whose calls are looked for in the text, if the model is one
        that writes them there (`parses_text_calls`). `shown` names the tools whose calls the parts
        bring as they come; None: all. The connection is closed with what is returned, which is to
        be begun at once.

        Raises:
            InferenceError: no answer, or, while it is read, half of one.
        """
        self._check_configured()
        model = str(body.get("model"))
        text = self._text_calls(model, text_calls_for)
        reply = await self._ask(Question(model, encode(body), headers))
        streamed = body.get("stream") is True
        if text is None:
            return await read(reply, shown, streamed=streamed)
        return parsed(await read(reply, shown), text, streamed=streamed)

    async def refusal(
        self, body: Json, headers: Mapping[str, str] = NO_HEADERS
    ) -> InferenceError | None:
        """What the model's server says against a small question, asked once; None: it answers."""
        self._check_configured()
        model = str(body.get("model"))
        endpoint = route(model, self._upstreams)[0].endpoint
        try:
            reply = await endpoint.post(CHAT, encode(body), headers, model)
            async with aclosing(await read(reply)) as items:
                async for _ in items:
                    pass
        except InferenceError as exc:
            return exc
        return None

    def _text_calls(self, model: str, names: Collection[str]) -> TextCalls | None:
        if not names or not self.parses_text_calls(model):
            return None
        return TextCalls(names, warned=self._warned)

    async def _ask(self, question: Question) -> Reply:
        """The answer that has begun, from the first server that gives one."""
        *others, last = route(question.model, self._upstreams)
        for upstream in others:
            try:
                return await self._try(upstream, question, others=True)
            except InferenceError as exc:
                if not is_down(exc):
                    raise
                upstream.rest()
                logger.warning("%s; asking the next server that has %s", exc, question.model)
        return await self._try(last, question, others=False)

    def _try(self, upstream: Upstream, question: Question, *, others: bool) -> Awaitable[Reply]:
        endpoint = upstream.endpoint
        ask = partial(endpoint.post, CHAT, question.body, question.headers, question.model)
        return asked(ask, endpoint, self._backoff, others=others)

    @asynccontextmanager
    async def forward(
        self,
        method: str,
        path: str,
        *,
        query: str = "",
        headers: Iterable[tuple[str, str]] | Mapping[str, str] = (),
        body: AsyncIterator[bytes] | bytes = b"",
        model: str | None = None,
    ) -> AsyncGenerator[Forwarded]:
        """Pass a request on as it is, and its answer back; only credentials are exchanged.

        `path` is below the base URL (`embeddings`). Without a model it goes to the first server.

        Raises:
            RequestError: the path is none.
            InferenceError: the server is out of reach, or its answer broke off. An error status
                is an answer.
        """
        self._check_configured()
        outgoing = await Outgoing.of(method, path, query, headers, body)
        reply = await self._pass_on(outgoing, model)
        try:
            yield Forwarded(reply)
        finally:
            await reply.aclose()

    async def _pass_on(self, outgoing: Outgoing, model: str | None) -> Reply:
        candidates = route(model, self._upstreams) if model else self._upstreams
        *others, last = candidates
        for upstream in others:
            try:
                return await outgoing.send(upstream.endpoint, model)
            except InferenceError as exc:
                if not exc.unsent:  # else the body may be used up
                    raise
                logger.warning("%s; asking the next server", exc)
        return await outgoing.send(last.endpoint, model)


async def parsed(
    items: AsyncGenerator[Item], text: TextCalls, *, streamed: bool
) -> AsyncGenerator[Item]:
    """The same with the tool calls that stand in the text taken out of it."""
    async with aclosing(items):
        async for item in items:
            match item:
                case Opened():
                    yield item
                case Part():
                    part = text.chunks(item)
                    if streamed:
                        yield part if part is not None else NOTHING
                case Answer():
                    last, answer = text.finish(item)
                    if last is not None and streamed:
                        yield last
                    yield answer
