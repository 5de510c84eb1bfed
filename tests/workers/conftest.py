"""One running bridge for all tests of a file: starting three processes takes a while."""

import pytest


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """As for all tests, but for fixtures that outlive one."""
    return "asyncio"
