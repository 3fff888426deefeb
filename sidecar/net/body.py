# cython: language_level=3, annotation_typing=False
"""The body of a request, still in the client's channel or read ahead into its buffer."""

from __future__ import annotations

from typing import Final

from ..errors import Broken, Failure, Malformed
from ..wire.body import ChunkedDecoder
from ..wire.head import LENGTH, RequestHead
from .channel import Channel
from .flow import Flow

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class RequestBody:
    """A request body; it is whole while all of it is still to be had: in the client's channel, or kept."""

    __slots__ = (
        "_channel",
        "_flow",
        "_most",
        "_timeout",
        "continued",
        "expects",
        "framing",
        "kept",
        "length",
        "limit",
    )

    def __init__(self, head: RequestHead, channel: Channel, timeout: float) -> None:
        self._channel = channel
        self._timeout = timeout  # seconds between two reads
        self._flow: Flow | None = None
        self._most = -1  # bytes that are kept as they pass; -1: none
        self.framing: int = head.framing
        self.length: int = head.length
        self.limit = -1  # bytes; -1: none
        self.expects: bool = head.expect_continue
        self.continued = False  # the proxy itself answered 100 (Continue)
        self.kept: bytes | None = None  # the whole body, taken out of the channel to be sent more than once

    def bound(self, limit: int) -> None:
        """Bound the body to `limit` bytes. Raises Failure when its length already tells that it is larger."""
        self.limit = limit
        if self.framing == LENGTH and self.length > limit:
            raise Failure("request_body_too_large")

    def keep(self, limit: int) -> None:
        """Have a body of at most `limit` bytes kept, so that it can be sent again. Raises Failure.

        It is taken into memory at once; one whose length is unknown, or that the client holds back until it
        is asked for, as it passes.
        """
        if self.kept is not None or (self.framing == LENGTH and self.length > limit):
            return
        if self.framing == LENGTH and not self.expects:
            self.fill(self.length)
            self.kept = self._channel.peek()[: self.length]
            self._channel.skip(self.length)
        else:
            self._most = max(self._most, limit)

    @property
    def is_whole(self) -> bool:
        """Whether everything of the body is still to be had."""
        return self._flow is None or self._flow.whole

    @property
    def content(self) -> bytes | None:
        """The whole body, once it is kept to its end; None: it is not, or trailer fields follow it."""
        if self.kept is not None or self._flow is None:
            return self.kept
        return self._flow.content

    @property
    def moved(self) -> int:
        """Bytes of the body that were passed on."""
        if self.kept is not None:
            return len(self.kept)
        return 0 if self._flow is None else self._flow.moved

    def flow(self, sink: Channel, write_timeout: float, is_timed: bool = True) -> Flow:
        """The body's way to `sink`, where the request's head is held, from its beginning.

        `is_timed`: the client has as long for the next bytes as its listener grants; else whoever pumps
        sees to that.
        """
        if self._flow is not None and self._flow.kept is not None:
            self._flow.again(sink, self.framing, write_timeout)
            return self._flow
        self._flow = Flow(
            self._channel,
            sink,
            self.framing,
            self.length,
            self.framing,
            self._timeout if is_timed else 0.0,
            write_timeout,
            self.limit,
            self._most,
        )
        return self._flow

    def fill(self, size: int) -> None:
        """Read ahead until the body, or `size` bytes of it, are in memory. Raises Failure."""
        try:
            if self.expects and self._channel.pending == 0:
                self.continued = True
                self._channel.send(_CONTINUE, self._timeout)
            if self._channel.framed and self.framing != LENGTH:
                self._channel.fill(size, self._timeout)
                complete = True
            elif self.framing == LENGTH:
                complete = self._channel.fill(min(size, self.length), self._timeout)
            else:
                complete = self._fill_chunks(size)
        except Broken as broken:
            reason = "request_body_timeout" if broken.what == "timeout" else "client_gone"
            raise Failure(reason, "while the request body was read ahead") from broken
        if not complete:
            raise Failure("client_gone", "while the request body was read ahead")

    def _fill_chunks(self, size: int) -> bool:
        channel = self._channel
        decoder = ChunkedDecoder()
        seen = decoded = 0
        while decoded < size and seen < 2 * size + 1024 and not decoder.done:
            if channel.pending == seen and not channel.fill(seen + 1, self._timeout):
                return False
            data, used = decoder.feed(channel.peek(seen))
            decoded += len(data)
            seen += used
            if 0 <= self.limit < decoded:
                raise Failure("request_body_too_large")
        return True

    def settle(self) -> bool:
        """After the response: whether nothing of the body is left in the way of the next request."""
        if self.kept is not None or self._channel.framed:
            return True
        if self._flow is not None:
            return self._flow.done and self._flow.broken is None
        if self.framing == LENGTH and self._channel.pending >= self.length:
            self._channel.skip(self.length)
            return True
        if self.framing == LENGTH or self.expects:
            return False
        try:
            decoder = ChunkedDecoder()
            _, used = decoder.feed(self._channel.peek())
        except Malformed:
            return False
        if decoder.done:
            self._channel.skip(used)
        return decoder.done
