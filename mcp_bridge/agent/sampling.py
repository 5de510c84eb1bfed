"""What a server asks while it works on a call, and who answers it: the caller, or a model of ours.

Theory of operation. Each tool call gets an `Answerer` of its own from `Answerers.for_call`, put
together from small ones by `sampling.answer`. Sampling that the bridge answers goes straight to the
inference server, never through the loop: tools that a server offers with its question are its own,
and the calls that the model makes go back to it (SEP-1577).

A server must not spend without end. One call's answerer holds the budget of that call (requests and
tokens, which are set aside before a model is asked, so that questions side by side cannot overdraw
it), and each question carries how deep in sampling it is asked. Bridges may stand one behind the
other, or a bridge may be its own inference server by mistake, so the depth travels as a header.
"""

import logging
from collections.abc import Mapping
from contextlib import aclosing

import anyio
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND

from mcp_bridge.agent.create_message import BadAnswer, BadRequest, Request, chat_body, result_of
from mcp_bridge.config.settings import Sampling, SamplingModel
from mcp_bridge.errors import BridgeError, InferenceError, SourceRefused
from mcp_bridge.inference.answer import Answer
from mcp_bridge.inference.choose import Preferences, Ranked, rank
from mcp_bridge.inference.client import Inference
from mcp_bridge.mcp_client.session import ASKED
from mcp_bridge.tools.source import Answerer
from mcp_bridge.types import Json, frozen

logger = logging.getLogger(__name__)

SAMPLING = "sampling/createMessage"
DEPTH_HEADER = "mcp-bridge-sampling-depth"
REJECTED = -1
"""The specification's code for a sampling request that the user rejected."""

WRONG_QUESTION = frozenset({400, 413, 422})
"""What another model would refuse too."""


def depth_of(headers: Mapping[str, str]) -> int:
    """How deep in sampling a chat request is: 0, unless a bridge asks it for a server."""
    value = headers.get(DEPTH_HEADER, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 4 else 0


class Answerers:
    """Makes the answerer of each tool call."""

    def __init__(self, inference: Inference, settings: Sampling) -> None:
        self._inference = inference
        self._settings = settings

    def for_call(
        self, model: str | None, caller: Answerer | None = None, depth: int = 0
    ) -> Answerer:
        """An answerer for one tool call, with a fresh budget.

        `model` is the one that the conversation uses (None: there is no conversation), `caller`
        answers what the caller itself can answer.
        """
        own = caller or Nobody()
        bridge = BridgeSampler(self._inference, self._settings, model, depth)
        match self._settings.answer:
            case "caller":
                return own
            case "bridge":
                return InTurn(bridge, WithoutSampling(own))
            case "caller-then-bridge":
                return InTurn(own, bridge)


class Nobody:
    """The answerer of a caller that can answer nothing."""

    def capabilities(self) -> Json:
        return {}

    async def answer(self, source: str, method: str, params: Json) -> Json:
        raise SourceRefused(
            source,
            f"{source} asked for {method}, which the caller cannot answer",
            rpc_code=METHOD_NOT_FOUND,
        )


@frozen
class WithoutSampling:
    """A caller that is not asked for models."""

    caller: Answerer

    def capabilities(self) -> Json:
        return {k: v for k, v in self.caller.capabilities().items() if k != "sampling"}

    async def answer(self, source: str, method: str, params: Json) -> Json:
        return await (Nobody() if method == SAMPLING else self.caller).answer(
            source, method, params
        )


@frozen
class InTurn:
    """Asks the first who can answer; the second when the first cannot, not when it will not."""

    first: Answerer
    second: Answerer

    def capabilities(self) -> Json:
        return united(self.first.capabilities(), self.second.capabilities())

    async def answer(self, source: str, method: str, params: Json) -> Json:
        if not able(self.first, method, params):
            return await self.second.answer(source, method, params)
        try:
            return await self.first.answer(source, method, params)
        except SourceRefused as exc:
            if exc.rpc_code != METHOD_NOT_FOUND or not able(self.second, method, params):
                raise
            return await self.second.answer(source, method, params)


def able(answerer: Answerer, method: str, params: Json) -> bool:
    """Whether an answerer says that it can answer this question."""
    found = normal(answerer.capabilities()).get(ASKED.get(method, ""))
    if not isinstance(found, dict):
        return False
    match method:
        case "sampling/createMessage":
            return "tools" in found or not params.get("tools")
        case "elicitation/create":
            return str(params.get("mode") or "form") in found
        case _:
            return True


def united(first: Json, second: Json) -> Json:
    """What two answerers can answer together."""
    both = normal(first)
    for name, value in normal(second).items():
        both[name] = {**value, **both.get(name, {})}
    return both


def normal(capabilities: Json) -> Json:
    """Capabilities as objects; an empty `elicitation` means forms."""
    found = {name: v if isinstance(v, dict) else {} for name, v in capabilities.items()}
    if found.get("elicitation") == {}:
        found["elicitation"] = {"form": {}}
    return found


class Spent(Exception):
    """Nothing is left of the budget; the message says of what."""


class Budget:
    """What the sampling of one tool call may still use."""

    def __init__(self, settings: Sampling) -> None:
        self._settings = settings
        self._requests = settings.max_requests
        self._tokens = settings.max_tokens

    def set_aside(self, tokens: int) -> int:
        """Take one request and up to so many tokens; returns how many.

        Raises:
            Spent: nothing is left.
        """
        if self._requests <= 0:
            limit = self._settings.max_requests
            raise Spent(f"one tool call may ask a model {limit} times (sampling.max_requests)")
        if self._tokens <= 0:
            limit = self._settings.max_tokens
            raise Spent(f"one tool call may use {limit} tokens (sampling.max_tokens)")
        granted = min(tokens, self._tokens)
        self._requests -= 1
        self._tokens -= granted
        return granted

    def settle(self, granted: int, used: int) -> None:
        """Count what was really used. Without an answer nobody knows, and it stays set aside."""
        self._tokens += granted - used


class BridgeSampler:
    """Answers sampling with the models of the inference server."""

    def __init__(
        self, inference: Inference, settings: Sampling, model: str | None, depth: int
    ) -> None:
        self._inference = inference
        self._settings = settings
        self._model = model
        self._depth = depth
        self._budget = Budget(settings)

    @property
    def _models(self) -> tuple[SamplingModel, ...]:
        """Those to choose from: the configured ones, or the caller's."""
        own = (SamplingModel(model=self._model),) if self._model else ()
        return self._settings.models or own

    def capabilities(self) -> Json:
        can = (self._settings.models or self._model) and self._depth < self._settings.max_depth
        return {"sampling": {"tools": {}}} if can else {}

    async def answer(self, source: str, method: str, params: Json) -> Json:
        if method != SAMPLING:
            return await Nobody().answer(source, method, params)
        self._check(source)
        try:
            with anyio.fail_after(self._settings.timeout):
                return await self._sample(source, Request.of(params), params)
        except BadRequest as exc:
            raise SourceRefused(source, str(exc), rpc_code=INVALID_PARAMS) from exc
        except Spent as exc:
            raise declined(source, str(exc)) from exc
        except TimeoutError as exc:
            seconds = f"{self._settings.timeout:g} s"
            raise failed(source, f"no model answered within {seconds}") from exc

    def _check(self, source: str) -> None:
        if self._depth >= self._settings.max_depth:
            limit = self._settings.max_depth
            raise declined(source, f"sampling may be {limit} deep (sampling.max_depth)")
        if not self._models:
            raise declined(source, "there is no model for it (sampling.models)")

    async def _sample(self, source: str, request: Request, params: Json) -> Json:
        """Ask the models in the order of their rank until one answers."""
        granted = self._budget.set_aside(request.max_tokens)
        ranking = rank(self._models, Preferences.of(params.get("modelPreferences")))
        model, answer = await self._first_answer(source, ranking, request, granted)
        used = tokens_of(answer, granted)
        self._budget.settle(granted, used)
        logger.info(
            "sampling for %s answered by %s: %d tokens, at most %d were granted",
            source,
            model,
            used,
            granted,
        )
        try:
            return result_of(answer, request, model)
        except BadAnswer as exc:
            raise failed(source, str(exc)) from exc

    async def _first_answer(
        self, source: str, ranking: tuple[Ranked, ...], request: Request, max_tokens: int
    ) -> tuple[str, Answer]:
        problems: list[str] = []
        for candidate in ranking:
            try:
                return candidate.model, await self._ask(candidate.model, request, max_tokens)
            except BridgeError as exc:
                problems.append(f"{candidate.model}: {exc.message}")
                logger.warning("sampling for %s: %s", source, problems[-1])
                if exc.status in WRONG_QUESTION:
                    break
        raise failed(source, "; ".join(problems))

    async def _ask(self, model: str, request: Request, max_tokens: int) -> Answer:
        vision, profile = self._inference.sees_images(model), self._inference.profile(model)
        body = chat_body(request, model, max_tokens, vision=vision, profile=profile)
        try:
            return await self._answer_to(body)
        except InferenceError as exc:
            # OpenAI's newer models know the bound by another name only.
            if exc.status != 400 or "max_completion_tokens" not in exc.message:
                raise
        body["max_completion_tokens"] = body.pop("max_tokens")
        return await self._answer_to(body)

    async def _answer_to(self, body: Json) -> Answer:
        names = [tool["function"]["name"] for tool in body.get("tools", ())]
        headers = {DEPTH_HEADER: str(self._depth + 1)}
        parts = await self._inference.chat(body, headers=headers, text_calls_for=names)
        answer: Answer | None = None
        async with aclosing(parts):
            async for part in parts:
                if isinstance(part, Answer):
                    answer = part
        assert answer is not None  # noqa: S101  # inference ends every question with one Answer
        return answer


def tokens_of(answer: Answer, granted: int) -> int:
    """What an answer has used; a server that does not say is taken to have used all of it."""
    total = (answer.usage or {}).get("total_tokens")
    return total if isinstance(total, int) and not isinstance(total, bool) else granted


def declined(source: str, why: str) -> SourceRefused:
    return SourceRefused(source, f"the sampling request was declined: {why}", rpc_code=REJECTED)


def failed(source: str, why: str) -> SourceRefused:
    return SourceRefused(source, f"sampling failed: {why}", rpc_code=INTERNAL_ERROR)
