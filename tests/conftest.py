"""What tests of the moving parts share. They run on gevent's plain hub, nothing is monkey-patched."""

from __future__ import annotations

import gc
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support import command

# No test has a time, and each run is the same: `--hypothesis-profile default` looks further.
settings.register_profile(
    "suite",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    """What the end-to-end tests test."""
    parser.addoption(
        "--command",
        metavar="WORDS",
        default="",
        help="the sidecar that the end-to-end tests start, like dist/sidecar; else the installed command",
    )


def pytest_configure(config: pytest.Config) -> None:
    """A command that is not there ends the run before it begins."""
    words = config.getoption("--command")
    if not words:
        return
    try:
        command.choose(words)
    except LookupError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_collection_finish() -> None:
    """What is there now stays: the collections that tests ask for need not look through it."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """The test gives back every descriptor it took."""
    from sidecar.net.channel import Channel
    from tests.support.streams import open_descriptors, settle, wait_until

    one, two = socket.socketpair()
    two.close()
    Channel(one.detach()).close()  # the hub and its poller exist from here on
    # What earlier tests left to the collector is theirs, and goes before the count.
    gc.collect()
    settle()
    before = open_descriptors()
    yield
    if open_descriptors() > before:
        gc.collect()
        wait_until(lambda: open_descriptors() <= before)
