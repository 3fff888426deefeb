"""What several tests of HTTP/2 begin with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.http2 import Served


@pytest.fixture
def client() -> Iterator[Served]:
    """A client whose requests are all answered "hi"."""
    with Served() as one:
        yield one
