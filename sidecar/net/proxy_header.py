"""Reads the PROXY header at the beginning of a client's connection."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import Broken, Malformed
from ..wire.proxy_protocol import Result, parse
from .channel import Channel


def read_proxy_header(
    channel: Channel, is_required: bool, timeout: float, now: Callable[[], float]
) -> Result | None:
    """The header, taken from the channel; None: the connection begins without one, and may.

    `timeout` in seconds is for the whole of it. Raises Malformed, and Broken when it does not come.
    """
    until = now() + timeout
    while True:
        if not channel.fill(channel.pending + 1, max(until - now(), 0.001)):
            raise Broken("source", "ended")
        try:
            found = parse(channel.peek())
        except Malformed as malformed:
            if malformed.rule == "proxy_missing" and not is_required:
                return None
            raise
        if found is not None:
            channel.skip(found.size)
            return found
