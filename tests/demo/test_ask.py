"""When an answer counts as right."""

import pytest

from mcp_bridge.demo.ask import USUAL, Outcome, Question, reason_against

BOTH = ["current_time", "calculate"]
OTHER = Question("What is 6 * 7?")


@pytest.mark.parametrize(
    ("outcome", "question"),
    [
        (Outcome("It is late. 17 * 23 = 391.", BOTH), USUAL),
        (Outcome("391, and it is late", [*BOTH, "calculate"], ["calculate"]), USUAL),
        (Outcome("42", ["calculate"]), OTHER),
    ],
)
def test_an_answer_from_the_tools_is_right(outcome: Outcome, question: Question) -> None:
    assert reason_against(outcome, question) is None


@pytest.mark.parametrize(
    ("outcome", "question", "reason"),
    [
        (Outcome("391", BOTH, error="cut"), USUAL, "ended with an error: cut"),
        (Outcome("391"), USUAL, "no tool ran: this model may not"),
        (Outcome("391", [], ["calculate"]), USUAL, "no tool ran (calculate failed)"),
        (Outcome("391", ["current_time"]), USUAL, "calculate did not run"),
        (Outcome("392", BOTH), USUAL, "does not hold 391"),
        (Outcome(" ", ["calculate"]), OTHER, "the answer is empty"),
    ],
)
def test_any_other_answer_is_not_and_the_reason_is_told(
    outcome: Outcome, question: Question, reason: str
) -> None:
    assert reason in (reason_against(outcome, question) or "")
