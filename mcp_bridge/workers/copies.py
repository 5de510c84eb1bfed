"""What a worker keeps for a caller's next request, as it is written to the others."""

from collections.abc import Iterator

from mcp_bridge.agent.memory import HiddenTurn, TurnCopy
from mcp_bridge.agent.waiting import Key
from mcp_bridge.bridge import Bridge
from mcp_bridge.tools.stored import ResultCopy
from mcp_bridge.types import Json

TURN, RESULT, WAITS = "turn", "result", "waits"
"""What is told: a hidden turn, a cut result, where a conversation waits for its user."""

Told = tuple[str, Json]


def turn_told(copy: TurnCopy) -> Told:
    turn = copy.turn
    return TURN, {
        "key": copy.key,
        "loose": copy.loose,
        "before": turn.before,
        "assistant": turn.assistant,
        "answers": turn.answers,
        "after": turn.after,
        "seconds": copy.seconds,
    }


def turn_of(told: Json) -> TurnCopy:
    before, answers, after = tuple(told["before"]), tuple(told["answers"]), tuple(told["after"])
    turn = HiddenTurn(before, told["assistant"], answers, after)
    return TurnCopy(key_of_turn(told["key"]), key_of_turn(told["loose"]), turn, told["seconds"])


def key_of_turn(told: list[str]) -> tuple[str, str, str]:
    caller, before, said = told
    return caller, before, said


def result_told(copy: ResultCopy) -> Told:
    return RESULT, {
        "caller": copy.caller,
        "id": copy.id,
        "text": copy.text,
        "page": copy.page,
        "seconds": copy.seconds,
    }


def result_of(told: Json) -> ResultCopy:
    return ResultCopy(told["caller"], told["id"], told["text"], told["page"], told["seconds"])


def waits_told(worker: int, key: Key, waits: bool) -> Told:
    return WAITS, {"worker": worker, "key": key, "waits": waits}


def key_waited(told: list[str]) -> Key:
    caller, users, number = told
    return caller, users, number


def all_kept(bridge: Bridge) -> Iterator[Told]:
    """All that a worker that starts again needs."""
    for turn in tuple(bridge.rules.memory.copies()):
        yield turn_told(turn)
    for result in tuple(bridge.rules.stored.copies()):
        yield result_told(result)


def take(bridge: Bridge, method: str, told: Json) -> None:
    """Keep what another worker has told."""
    match method:
        case "turn":
            bridge.rules.memory.put(turn_of(told))
        case "result":
            bridge.rules.stored.put(result_of(told))
