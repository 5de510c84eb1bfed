"""What a worker is told when it is started: a message of the supervisor's, on their connection."""

import os
import pickle
from dataclasses import dataclass

from mcp_bridge.config.load import Loaded
from mcp_bridge.types import Json

KEEPER = 0
"""The worker that has the MCP servers."""

READY = b"ready"
"""What a worker says when it takes requests."""

ALIVE = b"alive"
"""What it is asked now and then, and what it says while its loop runs."""


@dataclass(frozen=True, slots=True)
class Job:
    """One worker's part.

    `directory` is private to the workers: each has its socket there. `inside` and `sockets` are
    descriptors that the worker has inherited: where the others reach it, and the public ones.
    `fresh`: the others have been serving, so ask them for what they keep. `path` and `overrides`
    tell how the configuration is read again.
    """

    number: int
    of: int
    directory: str
    inside: int
    sockets: tuple[int, ...]
    loaded: Loaded
    path: str | None
    overrides: Json
    fresh: bool = False

    @property
    def is_keeper(self) -> bool:
        return self.number == KEEPER

    @property
    def others(self) -> list[int]:
        return [number for number in range(self.of) if number != self.number]

    def address(self, number: int) -> str:
        """Where the others reach a worker."""
        return address(self.directory, number)

    def packed(self) -> bytes:
        return pickle.dumps(self)

    @classmethod
    def unpacked(cls, data: bytes) -> "Job":
        job = pickle.loads(data)  # noqa: S301  # the supervisor has written it, for us alone
        assert isinstance(job, cls)  # noqa: S101  # and nothing else is ever sent first
        return job


def address(directory: str, number: int) -> str:
    return os.path.join(directory, f"{number}.sock")


def counts_in(directory: str) -> str:
    """Where they say how many connections they have."""
    return os.path.join(directory, "connections")


def metrics_in(directory: str) -> str:
    """Where the workers count."""
    return os.path.join(directory, "metrics")
