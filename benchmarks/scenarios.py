"""What is asked and what must come back, known to the inference server and to the load alike."""

from dataclasses import dataclass

TOKEN = "word "
"""Every chunk of text says this, so that an answer is checked by counting."""

ECHOED = "echoed:"
"""How a result of the echo tools begins: the model sees that its calls were run."""

SERVERS = ("a", "b", "c")
"""The MCP servers behind a bridge. The echo tool of server "a" is "a_echo"."""

CLIENT = "client"
"""Who has the echo tool that the client brings itself."""

KEY = "bench-key"


def echo_of(server: str) -> str:
    return f"{server}_echo"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of question. `calls` names, for each round, the servers whose echo is called."""

    name: str
    title: str
    model: str
    stream: bool
    tokens: int = 20
    calls: tuple[tuple[str, ...], ...] = ()
    known: bool = True
    """Whether our inference server answers, so that every word is known."""

    @property
    def body(self) -> dict[str, object]:
        """The chat request."""
        return {
            "model": self.model,
            "messages": [
                {"role": "system", "content": "You are a helpful assistant. Be brief."},
                {"role": "user", "content": "Repeat a word, please, and use your tools."},
            ],
            "temperature": 0.2,
            "stream": self.stream,
        }


ONE = (("a",),)
FOUR = (("a", "b", "c", "a"),)
CHAIN = (("a",), ("b",), ("c",))

TABLE = (
    Scenario("whole", "whole", "text-20", stream=False),
    Scenario("streamed", "streamed", "text-20", stream=True),
    Scenario("burst", "200-chunk burst", "text-200", stream=True, tokens=200),
    Scenario("call-whole", "one call, whole", "one-call", stream=False, calls=ONE),
    Scenario("call-streamed", "one call, streamed", "one-call", stream=True, calls=ONE),
    Scenario("four-whole", "four parallel, whole", "four-calls", stream=False, calls=FOUR),
    Scenario("four-streamed", "four parallel, streamed", "four-calls", stream=True, calls=FOUR),
    Scenario("chain-whole", "chain of three, whole", "chain", stream=False, calls=CHAIN),
    Scenario("chain-streamed", "chain of three, streamed", "chain", stream=True, calls=CHAIN),
)
"""The columns of the main table."""

PACED = Scenario("paced", "a chunk every 20 ms", "paced", stream=True, tokens=100)
IDLE = Scenario("idle", "a stream that says nothing more", "idle", stream=True, tokens=1)

MIXED = Scenario("mixed", "a mixed turn", "mixed", stream=False, calls=(("a", CLIENT),))
"""The model calls the bridge's tool and the client's own in one turn."""

LONG = Scenario("long", "a long stream", "text-20000", stream=True, tokens=20_000)

ILL = ("ill-cut", "ill-500", "ill-429", "ill-garbage", "ill-nothing")
"""Models whose answers are failures."""

SILENT = "ill-silent"
"""A model that never says anything."""

TOOL_COUNTS = (0, 10, 100, 1000)
"""How many tools are added to a request, to see what that costs."""

PACE_SECONDS = 0.02
BY_NAME = {scenario.name: scenario for scenario in (*TABLE, PACED, IDLE, MIXED, LONG)}
