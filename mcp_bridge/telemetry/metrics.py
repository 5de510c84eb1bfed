"""What is measured, for `/metrics` in the Prometheus format (O1).

Each application has a registry of its own. Labels come from names that clients and MCP servers
choose, so every label has a bound: what comes after the first so many names is counted as `other`.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from operator import add
from typing import Generic, TypeVar

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from mcp_bridge.types import Json

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
OTHER = "other"
MOST_MODELS = 100
MOST_TOOLS = 500
MOST_CALLERS = 200
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
LEFT = "left"
"""The status of a request whose client left before the answer began."""

REQUEST_BUCKETS = (0.005, 0.02, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
CALL_BUCKETS = (0.01, 0.05, 0.2, 1, 5, 15, 60, 300, 900)
ROUND_BUCKETS = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50)
CONNECTED = "connected"

Metered = TypeVar("Metered", Counter, "Spread")


class Known:
    """The first `most` names that were seen. The ones after them are `other`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._names: set[tuple[str, ...]] = set()

    def __call__(self, *name: str) -> tuple[str, ...]:
        if name in self._names:
            return name
        if len(self._names) >= self._most:
            return (OTHER,) * len(name)
        self._names.add(name)
        return name


class Spread(Histogram):
    """A histogram that takes many observations at once."""

    def take(self, times: "Times") -> None:
        """What `observe` does, for each of them."""
        self._sum.inc(times.sum)
        for bucket, count in zip(self._buckets, times.within, strict=True):
            if count:
                bucket.inc(count)


class Children(Generic[Metered]):
    """A metric's children by their labels; finding one in prometheus_client takes a lock."""

    def __init__(self, metric: Metered) -> None:
        self._metric: Metered = metric
        self._known: dict[tuple[str, ...], Metered] = {}

    def __call__(self, *labels: str) -> Metered:
        child = self._known.get(labels)
        if child is None:
            child = self._known[labels] = self._metric.labels(*labels)
        return child


class Times:
    """How long something took, each time: the sum, and how often it was within which bound."""

    __slots__ = ("_bounds", "sum", "within")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.sum = 0.0
        self.within = [0] * (len(bounds) + 1)

    def add(self, amount: float) -> None:
        self.sum += amount
        self.within[bisect_left(self._bounds, amount)] += 1

    def count(self) -> int:
        """How many times."""
        return sum(self.within)


class Untold:
    """What happened since prometheus_client was last told, added up.

    It would take several locks for each event, and ten times as long.
    """

    def __init__(self) -> None:
        self.requests: dict[tuple[str, str, int], Times]
        self.requests = defaultdict(partial(Times, REQUEST_BUCKETS))
        self.conversations: dict[tuple[str, str, str, str], int] = defaultdict(int)
        self.rounds = Times(ROUND_BUCKETS)
        self.tokens: dict[tuple[str, str, str], int] = defaultdict(int)
        self.calls: dict[tuple[str, str, str], Times]
        self.calls = defaultdict(partial(Times, CALL_BUCKETS))


@dataclass(frozen=True, slots=True)
class Together:
    """Several processes whose counts are shown as one.

    They count in files of this directory, which the environment named when prometheus_client was
    imported (its multiprocess mode), so that what a process has counted outlives it.
    """

    directory: str
    pids: Callable[[], Iterable[int]]


class Metrics:
    """Everything that one application counts."""

    def __init__(self, together: Together | None = None) -> None:
        self._registry = CollectorRegistry()
        self._servers = ServerStates()
        self._shown = self._registry
        if together is None:
            ProcessCollector(registry=self._registry)
        else:
            self._shown = CollectorRegistry()
            MultiProcessCollector(self._shown, path=together.directory)  # type: ignore[no-untyped-call]  # it has none
            self._shown.register(Processes(together.pids))
        self._shown.register(self._servers)
        # Of several processes each may be killed, and each shows what all of them have counted.
        self._tell_at_once = together is not None
        self._untold = Untold()
        self._callers = Known(MOST_CALLERS)
        self._models = Known(MOST_MODELS)
        self._tools = Known(MOST_TOOLS)
        self._count_requests()
        self._count_conversations()
        self._count_tools()

    def _count_requests(self) -> None:
        self._requests = Children(
            Counter(
                "mcp_bridge_http_requests",
                "HTTP requests.",
                ("method", "path", "status"),
                registry=self._registry,
            )
        )
        self._request_seconds = Children(
            Spread(
                "mcp_bridge_http_request_seconds",
                "Seconds from a request to the end of its answer.",
                ("path",),
                buckets=REQUEST_BUCKETS,
                registry=self._registry,
            )
        )
        self._streams = Gauge(
            "mcp_bridge_streams_open",
            "Streamed answers that are under way.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )

    def _count_conversations(self) -> None:
        self._conversations = Children(
            Counter(
                "mcp_bridge_conversations",
                "Conversations that have ended, by finish reason and the bound that stopped them.",
                ("caller", "model", "finish_reason", "stopped"),
                registry=self._registry,
            )
        )
        self._rounds = Spread(
            "mcp_bridge_conversation_rounds",
            "Questions to the model in one conversation.",
            buckets=ROUND_BUCKETS,
            registry=self._registry,
        )
        self._tokens = Children(
            Counter(
                "mcp_bridge_tokens",
                "Tokens as the inference server counts them; cached and reasoning tokens are part "
                "of the prompt and the completion.",
                ("caller", "model", "kind"),
                registry=self._registry,
            )
        )

    def _count_tools(self) -> None:
        self._calls = Children(
            Counter(
                "mcp_bridge_tool_calls",
                "Tool calls that have ended.",
                ("server", "tool", "outcome"),
                registry=self._registry,
            )
        )
        self._call_seconds = Children(
            Spread(
                "mcp_bridge_tool_call_seconds",
                "Seconds of a tool call.",
                ("server", "tool"),
                buckets=CALL_BUCKETS,
                registry=self._registry,
            )
        )

    # What happens

    def request(self, method: str, path: str, status: int, seconds: float) -> None:
        """A request has been answered. `path` is its route's template; status 0: nobody waited."""
        known = method if method in METHODS else OTHER
        self._untold.requests[known, path, status].add(seconds)
        if self._tell_at_once:
            self.tell()

    def stream(self, change: int) -> None:
        """A streamed answer has begun (1) or ended (-1)."""
        self._streams.inc(change)

    def conversation(
        self,
        caller: str,
        model: str,
        finish_reason: str,
        *,
        stopped: str | None = None,
        rounds: int = 0,
        usage: Json | None = None,
    ) -> None:
        """A conversation has ended. `finish_reason` is "error" for one that failed."""
        (who,), (which,) = self._callers(caller), self._models(model)
        untold = self._untold
        untold.conversations[who, which, finish_reason, stopped or ""] += 1
        if rounds:
            untold.rounds.add(rounds)
        for kind, count in tokens(usage) if usage else ():
            untold.tokens[who, which, kind] += count
        if self._tell_at_once:
            self.tell()

    def tool_call(self, server: str, tool: str, outcome: str, seconds: float) -> None:
        """A tool call has ended."""
        known_server, known_tool = self._tools(server, tool)
        self._untold.calls[known_server, known_tool, outcome].add(seconds)
        if self._tell_at_once:
            self.tell()

    # What is shown

    def page(self, servers: Mapping[str, str]) -> bytes:
        """What was told, in the text format. `servers` are the states of the MCP servers now.

        It takes a while with many tools, so it may be made in a thread.
        """
        self._servers.states = servers
        return generate_latest(self._shown)

    def tell(self) -> None:
        """Tell prometheus_client what happened, where it happened: in the thread of the loop."""
        untold, self._untold = self._untold, Untold()
        for (method, path, status), times in untold.requests.items():
            self._requests(method, path, str(status) if status else LEFT).inc(times.count())
            self._request_seconds(path).take(times)
        for ended, count in untold.conversations.items():
            self._conversations(*ended).inc(count)
        if untold.rounds.sum:
            self._rounds.take(untold.rounds)
        for counted, count in untold.tokens.items():
            self._tokens(*counted).inc(count)
        for (server, tool, outcome), times in untold.calls.items():
            self._calls(server, tool, outcome).inc(times.count())
            self._call_seconds(server, tool).take(times)


class ServerStates(Collector):
    """The MCP servers as they are when the page is asked for."""

    def __init__(self) -> None:
        self.states: Mapping[str, str] = {}

    def collect(self) -> Iterator[Metric]:
        connected = GaugeMetricFamily(
            "mcp_bridge_mcp_server_connected",
            "Whether an MCP server is connected.",
            labels=("server",),
        )
        states = GaugeMetricFamily(
            "mcp_bridge_mcp_server_state",
            "The state of an MCP server: 1 for the state that it is in.",
            labels=("server", "state"),
        )
        for name, state in self.states.items():
            connected.add_metric((name,), float(state == CONNECTED))
            states.add_metric((name, state), 1)
        yield connected
        yield states


class Processes(Collector):
    """Memory, CPU time and descriptors of several processes, added up; when the first began."""

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids

    def collect(self) -> Iterator[Metric]:
        found: dict[str, Metric] = {}
        for pid in self._pids():
            for metric in ProcessCollector(pid=partial(int, pid), registry=None).collect():
                value = metric.samples[0].value
                if (before := found.get(metric.name)) is not None:
                    together = min if metric.name.endswith("start_time_seconds") else add
                    value = together(before.samples[0].value, value)
                    metric.samples[0] = metric.samples[0]._replace(value=value)
                found[metric.name] = metric
        yield from found.values()


def tokens(usage: Json) -> list[tuple[str, int]]:
    """What an OpenAI `usage` object counts, by kind; what is no number is left out."""
    found = [("prompt", usage.get("prompt_tokens")), ("completion", usage.get("completion_tokens"))]
    if isinstance(prompt := usage.get("prompt_tokens_details"), dict):
        found.append(("cached", prompt.get("cached_tokens")))
    if isinstance(completion := usage.get("completion_tokens_details"), dict):
        found.append(("reasoning", completion.get("reasoning_tokens")))
    return [(kind, n) for kind, n in found if isinstance(n, int) and n > 0]
