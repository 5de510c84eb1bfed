"""When an inference server is asked again: only before the first byte of an answer.

A request that failed may have been worked on. Asking again is right nevertheless, because nothing
but text comes of it; tools run on our side. What took too long is not asked again, and neither is
what will fail the same way.
"""

import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import TypeVar

import anyio

from mcp_bridge.backoff import backoff
from mcp_bridge.errors import InferenceError
from mcp_bridge.inference.transport import MISCONFIGURED, TIMEOUT, Endpoint

logger = logging.getLogger(__name__)

T = TypeVar("T")

BACKOFF = 0.5
LONGEST_BACKOFF = 8.0
LONGEST_WAIT = 30.0
"""A server that wants to be left alone for longer is; its 429 goes to the caller."""

PASSING = frozenset({408, 409, 425, 429})
FINAL_STATUS = frozenset({501, 505})
FINAL = frozenset({TIMEOUT, MISCONFIGURED, "insufficient_quota"})


Ask = Callable[[], Awaitable[T]]


async def asked(ask: Ask[T], endpoint: Endpoint, first: float, *, others: bool) -> T:
    """What `ask` brings, asked as often as the server's settings and its words allow.

    `others` can be asked instead when this server is down.

    Raises:
        InferenceError: the last failure.
    """
    try:
        return await ask()  # nearly always the only time: it should cost nothing
    except InferenceError as exc:
        if not endpoint.settings.max_retries or not is_worth(exc, others=others):
            raise
        return await asked_again(ask, exc, endpoint, first, others=others)


async def asked_again(
    ask: Ask[T], failure: InferenceError, endpoint: Endpoint, first: float, *, others: bool
) -> T:
    """Ask again after a failure that is worth it; the first attempt is over."""
    for attempt in range(endpoint.settings.max_retries):
        logger.info("asking %s again: %s", endpoint.name, failure.without_frames())
        await anyio.sleep(seconds_before(attempt, failure, first))
        try:
            return await ask()
        except InferenceError as exc:
            failure = exc
        if not is_worth(failure, others=others):
            break
    raise failure


def seconds_before(attempt: int, failure: InferenceError, first: float) -> float:
    """How long to wait: what the server asks for, else longer each time, and not all the same."""
    told = asked_wait(failure.headers, time.time())
    if told is not None:
        return told
    return backoff(attempt + 1, first=first, longest=LONGEST_BACKOFF)


def is_worth(exc: BaseException, *, others: bool) -> bool:
    """Whether this server should be asked again, rather than another one, or none."""
    return is_passing(exc) and not (others and isinstance(exc, InferenceError) and exc.unsent)


def is_passing(exc: BaseException) -> bool:
    """Whether asking again soon may help."""
    if not isinstance(exc, InferenceError) or exc.code in FINAL:
        return False
    if (asked_wait(exc.headers, time.time()) or 0) > LONGEST_WAIT:
        return False
    match exc.headers.get("x-should-retry"):
        case "true":
            return True
        case "false":
            return False
    passing = exc.status in PASSING or exc.status >= 500
    return passing and exc.status not in FINAL_STATUS


def is_down(exc: InferenceError) -> bool:
    """Whether another server should be asked instead."""
    return exc.status in (502, 503, 504) and exc.code != MISCONFIGURED


def asked_wait(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds that a server asks to wait: `retry-after-ms`, or seconds, or a date."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - now)
    except (KeyError, ValueError):
        return None
