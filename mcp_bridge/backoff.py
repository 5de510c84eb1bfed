"""How long to wait before something is tried again."""

from tenacity import RetryCallState, Retrying, wait_exponential, wait_random


def backoff(attempt: int, *, first: float, longest: float) -> float:
    """Seconds before attempt number `attempt` + 1: `first`, doubled each time up to `longest`.

    Up to `first` is added at random, so that not all come at once.
    """
    wait = wait_exponential(multiplier=first, max=longest) + wait_random(0, first)
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = max(1, attempt)
    return wait(state)
