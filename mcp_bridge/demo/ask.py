"""Asking the bridge one question, as any OpenAI client would, and judging the answer."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import anyio
import openai
from openai.types.chat import ChatCompletionChunk

from mcp_bridge.types import Json

SECONDS = 600
"""A large model on a small machine is slow, above all while it is loaded."""

# Running tools come in this mode as structured items, and every client can read it (DESIGN 3.18).
PROGRESS = {"X-MCP-Progress": "openwebui"}
SHOWN = 200

Show = Callable[[str], None]
"""Writes text as it is, without a newline after it."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and how a right answer is known.

    `tools` must have run (empty: any one), `holds` must be in the text.
    """

    text: str
    tools: frozenset[str] = frozenset()
    holds: str = ""


USUAL = Question(
    "What time is it in Tokyo, and what is 17 * 23?",
    frozenset({"current_time", "calculate"}),
    "391",
)


@dataclass
class Outcome:
    """What came back: the text, the tools that ran, and the error that ended it."""

    text: str = ""
    succeeded: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    error: str = ""


async def ask(base_url: str, model: str, question: str, show: Show) -> Outcome:
    """Ask over HTTP, streamed, and show everything as it comes."""
    outcome = Outcome()
    listener = Listener(outcome, show)
    try:
        with anyio.fail_after(SECONDS):
            async with aclosing(stream(base_url, model, question)) as chunks:
                async for chunk in chunks:
                    listener.hear(chunk)
    except TimeoutError:
        outcome.error = f"no whole answer within {SECONDS} seconds"
    except openai.APIError as exc:
        outcome.error = exc.message
    return outcome


async def stream(
    base_url: str, model: str, question: str
) -> AsyncGenerator[ChatCompletionChunk, None]:
    # No proxy has a way to this machine's loopback.
    http = openai.DefaultAsyncHttpxClient(trust_env=False)
    async with openai.AsyncOpenAI(
        base_url=base_url, api_key="any", max_retries=0, timeout=SECONDS, http_client=http
    ) as client:
        chunks = await client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": question}],
            stream=True,
            extra_headers=PROGRESS,
        )
        async with chunks:
            async for chunk in chunks:
                yield chunk


class Listener:
    """Reads the chunks of one answer into an outcome, and shows them."""

    def __init__(self, outcome: Outcome, show: Show) -> None:
        self._outcome = outcome
        self._show = show
        self._calls: dict[str, Json] = {}
        self._thinking = False

    def hear(self, chunk: ChatCompletionChunk) -> None:
        extra = chunk.model_extra or {}
        if extra.get("type") == "response.output_item.added":
            self._tool(extra["item"])
        for choice in chunk.choices:
            if choice.delta.content:
                self._text(choice.delta.content)
            elif (choice.delta.model_extra or {}).get("reasoning_content"):
                self._thought()

    def _tool(self, item: Json) -> None:
        if item["type"] == "function_call":
            self._calls[item["call_id"]] = item
            return
        call = self._calls[item["call_id"]]
        worked = item["status"] == "completed"
        (self._outcome.succeeded if worked else self._outcome.failed).append(call["name"])
        output = " ".join(part["text"] for part in item["output"] if "text" in part)
        self._show(f"  [tool] {call['name']}({written(call['arguments'])})\n")
        self._show(f"         {'->' if worked else 'failed:'} {shortened(output)}\n")

    def _text(self, text: str) -> None:
        if not self._outcome.text:
            self._show("\n")
        self._outcome.text += text
        self._show(text)

    def _thought(self) -> None:
        if not self._thinking:
            self._show("  (the model is thinking)\n")
        self._thinking = True


def written(arguments: str) -> str:
    """Arguments as a call has them: `timezone="Asia/Tokyo"`."""
    values = json.loads(arguments)
    return ", ".join(f"{key}={json.dumps(value)}" for key, value in values.items())


def shortened(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= SHOWN else f"{flat[:SHOWN]} …"


def reason_against(outcome: Outcome, question: Question) -> str | None:
    """Why this is no right answer; None when it is one."""
    if outcome.error:
        return f"the question ended with an error: {outcome.error}"
    if not outcome.succeeded:
        failed = f" ({', '.join(outcome.failed)} failed)" if outcome.failed else ""
        return f"no tool ran{failed}: this model may not be able to call tools"
    if missing := question.tools - set(outcome.succeeded):
        return f"{', '.join(sorted(missing))} did not run, though the question needs it"
    if not outcome.text.strip():
        return "the answer is empty"
    if question.holds not in outcome.text:
        return f"the answer does not hold {question.holds}"
    return None
