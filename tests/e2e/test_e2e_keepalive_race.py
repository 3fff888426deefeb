"""A server that closes connections at rest while requests are on their way: none is lost or done twice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest

from tests.support.fleet import Load, repeated, servers
from tests.support.live import Live, until

#: What races with what is a matter of milliseconds.
pytestmark = pytest.mark.alone

#: How many there are, GETs among them; a longer run by hand asks for more.
REQUESTS: Final = int(os.environ.get("KEEPALIVE_RACE_REQUESTS", "1800"))
CLIENTS: Final = 600
LONGEST: Final = 20.0 + REQUESTS / 200

APP: Final = """
[upstream app]
server.a = {}
keepalive = 1000
[route app]
upstream = app
"""


@pytest.mark.timeout(LONGEST * 2)
@pytest.mark.parametrize("says", [[], ["says=1"]], ids=["closes", "says_so"])
def test_posts_around_the_moment(live: Live, tmp_path: Path, says: list[str]) -> None:
    """All clients ask, wait for about the second after which the server closes, and ask again: no error.

    With the server's idle time ignored, one POST in twenty of this meets a connection that is being closed.
    """
    with servers(tmp_path, "a", words=["idle=1.0", *says]) as (server,):
        sidecar = live.start(APP.format(server.address))
        with Load(live.port, "0.7-1.05", CLIENTS, gets=8) as load:
            until(lambda: server.size >= REQUESTS * 10, f"{REQUESTS} requests", LONGEST)
        lines = sidecar.wait_exchanges(load.report.sent)
        reused = sum(line["attempts"][-1]["reused"] for line in lines)
        print(f"{load.report}, {reused} on connections that were kept")
        assert load.report.failures == []
        assert repeated([server]) == []
        # Not by keeping none: who is told how long, uses them as long.
        assert reused > 0 or not says
    assert sidecar.complaints() == []


def test_posts_without_pause(live: Live, tmp_path: Path) -> None:
    """Connections that hardly rest are used again, though the server closes those that rest for 1 s."""
    with servers(tmp_path, "a", words=["idle=1.0"]) as (server,):
        sidecar = live.start(APP.format(server.address))
        with Load(live.port, 1000, 16, gets=8) as load:
            until(lambda: server.size >= 500 * 10, "500 requests")
        lines = sidecar.wait_exchanges(load.report.sent)
        assert load.report.failures == []
        # One for each client, and for those that rested too long after all, where the machine is slow.
        assert sum(not line["attempts"][-1]["reused"] for line in lines) < len(lines) / 5
