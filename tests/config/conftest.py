"""What the tests of the configuration share."""

from pathlib import Path

import pytest

from tests.config.reading import Reader


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    return Reader(tmp_path)
