"""How much of a model's context the tools take (U1)."""

import math
from collections.abc import Iterable

import orjson

from mcp_bridge.types import Json

CHARACTERS_PER_TOKEN = 4
"""Of JSON in English, over the usual tokenizers: an estimate, and the same for every model."""


def estimated_tokens(definitions: Iterable[Json]) -> int:
    """About how many tokens these tool definitions are in each question to a model."""
    return sum(
        math.ceil(len(orjson.dumps(each).decode()) / CHARACTERS_PER_TOKEN) for each in definitions
    )
