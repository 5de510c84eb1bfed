"""What all tests share."""

import logging
import os
from collections.abc import Generator, Iterator
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings

from mcp_bridge.telemetry.logging import tear_down

# How long something takes is the machine's affair (STYLE 9).
settings.register_profile("mcp_bridge", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mcp_bridge")

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


@pytest.fixture
def anyio_backend() -> str:
    """The bridge runs on asyncio (uvicorn), so its tests do too."""
    return "asyncio"


@pytest.fixture(autouse=True)
def log_of_its_own() -> Iterator[None]:
    """Commands and uvicorn set up loggers: nothing of that is left to the next test."""
    yield
    tear_down()
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.setLevel(logging.NOTSET)
            logger.propagate, logger.disabled = True, False


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = nothing_skipped_in_ci((yield))
    # Reports of parallel tests are sent as UTF-8, and some tests log what cannot be.
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return nothing_skipped_in_ci((yield))


def nothing_skipped_in_ci(report: Report) -> Report:
    """A machine may lack what a test needs, but not the one that must find mistakes."""
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        _, _, reason = report.longrepr if isinstance(report.longrepr, tuple) else ("", 0, "")
        report.outcome = "failed"
        report.longrepr = f"{reason}\nIn CI every test must run."
    return report
