"""Which inference server the demo uses: the one in the environment, else one on its usual port.

All are asked for their models at the same time; the first in order that has a model for chats is
taken.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import anyio
import httpx2

from mcp_bridge.config.safety import is_loopback
from mcp_bridge.demo.model import MODEL

HOSTED = "https://api.openai.com/v1"
"""Where a key without a base URL belongs, as the openai package has it."""

HOSTED_CHOICE = ("gpt-5-mini", "gpt-4.1-mini", "gpt-4o-mini")
"""Of the many models there: small ones that call tools."""

LOCAL_SECONDS = 1.5
REMOTE_SECONDS = 5.0
ENVIRONMENT = "the environment"
OTHER_KINDS = re.compile(
    r"embed|rerank|whisper|tts|speech|transcri|moderation|dall-e|image|audio|realtime|sora"
    r"|babbage|davinci|turbo-instruct|diffusion|minilm|\b(?:bge|gte|e5)-",
    re.IGNORECASE,
)
"""Names of models that do not chat."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A place where an inference server may be. `why` says how we came to it."""

    name: str
    base_url: str
    api_key: str | None = None
    why: str = "its usual port"
    seconds: float = LOCAL_SECONDS


LOCAL = (
    Candidate("Ollama", "http://127.0.0.1:11434/v1"),
    Candidate("LM Studio", "http://127.0.0.1:1234/v1"),
    Candidate("llama.cpp", "http://127.0.0.1:8080/v1"),
    Candidate("vLLM", "http://127.0.0.1:8000/v1"),
)


@dataclass(frozen=True, slots=True)
class Answered:
    """What was found at a candidate: a model, or the reason why there is none."""

    candidate: Candidate
    model: str | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Search:
    """Every candidate's answer, in order."""

    answers: tuple[Answered, ...]

    @property
    def found(self) -> Answered | None:
        return next((answer for answer in self.answers if answer.model), None)

    @property
    def named_but_useless(self) -> tuple[Answered, ...]:
        """What the environment names and cannot be used: people want to know."""
        useless = (one for one in self.answers if not one.model)
        return tuple(one for one in useless if one.candidate not in LOCAL)


def candidates(environ: Mapping[str, str]) -> tuple[Candidate, ...]:
    """Where to look, first what the environment names."""
    base_url, key = environ.get("OPENAI_BASE_URL", ""), environ.get("OPENAI_API_KEY") or None
    if base_url:
        url = base_url.rstrip("/")
        return (Candidate("OPENAI_BASE_URL", url, key, ENVIRONMENT, REMOTE_SECONDS), *LOCAL)
    if key:
        return (Candidate("OPENAI_API_KEY", HOSTED, key, ENVIRONMENT, REMOTE_SECONDS), *LOCAL)
    return LOCAL


async def search(where: Sequence[Candidate], wanted: str | None = None) -> Search:
    """Ask all candidates. `wanted` is the model to take where it is listed."""
    answers: dict[Candidate, Answered] = {}

    async def look(candidate: Candidate) -> None:
        answers[candidate] = await ask(candidate, wanted)

    async with anyio.create_task_group() as tasks:
        for candidate in where:
            tasks.start_soon(look, candidate)
    return Search(tuple(answers[candidate] for candidate in where))


async def ask(candidate: Candidate, wanted: str | None) -> Answered:
    """Ask one for its models."""
    headers = {"authorization": f"Bearer {candidate.api_key}"} if candidate.api_key else {}
    try:
        # No proxy has a way to this machine's own loopback.
        by_proxy = not is_loopback(urlsplit(candidate.base_url).hostname or "")
        with anyio.fail_after(candidate.seconds):
            async with httpx2.AsyncClient(timeout=candidate.seconds, trust_env=by_proxy) as client:
                answer = await client.get(f"{candidate.base_url}/models", headers=headers)
    except (TimeoutError, httpx2.TimeoutException):
        return Answered(candidate, problem="no answer")
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as exc:
        return Answered(candidate, problem=f"cannot be asked ({type(exc).__name__})")
    if answer.status_code != 200:
        return Answered(candidate, problem=f"answers with status {answer.status_code}")
    model = choose(listed(answer), wanted)
    return Answered(candidate, model, "" if model else "lists no model for chats")


def listed(answer: httpx2.Response) -> list[str]:
    """The models' ids; none when it is not a list of models."""
    try:
        body = answer.json()
    except ValueError:
        return []
    data = body.get("data") if isinstance(body, dict) else None
    entries = data if isinstance(data, list) else []
    ids = (entry.get("id") for entry in entries if isinstance(entry, dict))
    return [id for id in ids if isinstance(id, str)]


def choose(models: Sequence[str], wanted: str | None = None) -> str | None:
    """A model for chats: the wanted one, else a good one of a hosted list, else the first."""
    if wanted in models:
        return wanted
    able = [model for model in models if not OTHER_KINDS.search(model) and not is_ours(model)]
    return next((name for name in HOSTED_CHOICE if name in able), able[0] if able else None)


def is_ours(model: str) -> bool:
    """Another demo's scripted model (also as `model@toolset`) is no inference server to use."""
    return model == MODEL or model.startswith(f"{MODEL}@")
