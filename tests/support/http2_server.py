"""A server of HTTP/2 that plays a script: framing is that of the package `h2`, what it says is the test's."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings

from tests.support.streams import ServerSide

Code = h2.settings.SettingCodes


class Speaker:
    """One connection. Events come with `next`; what is not awaited is kept for later."""

    def __init__(self, side: ServerSide, settings: dict[Code, int] | None = None, greet: bool = True) -> None:
        self.side = side
        side.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        config = h2.config.H2Configuration(
            client_side=False, header_encoding="utf-8", validate_outbound_headers=False
        )
        self.h2 = h2.connection.H2Connection(config)
        # What is set later counts only when the other side has said so.
        self.h2.local_settings = h2.settings.Settings(client=False, initial_values=settings)
        self.events: list[Any] = []
        if greet:
            self.h2.initiate_connection()
            self.flush()

    def flush(self) -> None:
        """Send what is to be sent."""
        self.side.send(self.h2.data_to_send())

    def next(self, kind: type[Any] | tuple[type[Any], ...], stream: int = 0) -> Any:
        """The next event of a kind or of several, and of a stream unless it is 0."""
        while True:
            for event in self.events:
                if isinstance(event, kind) and stream in (0, getattr(event, "stream_id", 0)):
                    self.events.remove(event)
                    return event
            data = self.side.sock.recv(65536)
            if not data:
                raise AssertionError(f"ended without {kind}: {self.events}")
            self.side.received += data
            self.events += self.h2.receive_data(data)
            self.flush()

    def request(self) -> tuple[int, dict[str, str]]:
        """(stream, fields) of the next request head."""
        event = self.next(h2.events.RequestReceived)
        return event.stream_id, dict(event.headers)

    def body(self, stream: int, credit: bool = True) -> bytes:
        """A request's body to its end."""
        data = b""
        while True:
            event = self.next((h2.events.DataReceived, h2.events.StreamEnded), stream)
            if isinstance(event, h2.events.StreamEnded):
                return data
            data += event.data
            if credit and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, stream)
                self.flush()

    def head(
        self, stream: int, status: int = 200, fields: Sequence[tuple[str, str]] = (), ends: bool = False
    ) -> None:
        """Send a head."""
        self.h2.send_headers(stream, [(":status", str(status)), *fields], end_stream=ends)
        self.flush()

    def data(self, stream: int, data: bytes, ends: bool = False) -> None:
        """Send data, as the windows allow it."""
        while data:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if not room:
                self.next(h2.events.WindowUpdated)
                continue
            self.h2.send_data(stream, data[:room])
            data = data[room:]
            self.flush()
        if ends:
            self.h2.end_stream(stream)
            self.flush()

    def answer(
        self,
        stream: int,
        body: bytes = b"",
        status: int = 200,
        fields: Sequence[tuple[str, str]] = (),
        trailers: Sequence[tuple[str, str]] = (),
    ) -> None:
        """A whole response."""
        self.head(stream, status, fields, not body and not trailers)
        if body:
            self.data(stream, body, not trailers)
        if trailers:
            self.h2.send_headers(stream, trailers, end_stream=True)
            self.flush()

    def reset(self, stream: int, code: int) -> None:
        """Reset a stream."""
        self.h2.reset_stream(stream, code)
        self.flush()

    def goaway(self, last: int, code: int = 0) -> None:
        """Say that nothing above `last` was or will be acted on; the connection goes on."""
        payload = last.to_bytes(4, "big") + code.to_bytes(4, "big")
        self.side.send(b"\0\0\x08\x07\0\0\0\0\0" + payload)


def speak(
    script: Callable[[Speaker], None], settings: dict[Code, int] | None = None, greet: bool = True
) -> Callable[[ServerSide], None]:
    """A script of a FakeServer."""

    def play(side: ServerSide) -> None:
        script(Speaker(side, settings, greet))

    return play


def serving(count: int = 1000, **settings: int) -> Callable[[ServerSide], None]:
    """A server that answers so many requests with their path as the body; settings by their names."""

    def script(it: Speaker) -> None:
        for _ in range(count):
            stream, fields = it.request()
            it.answer(stream, fields[":path"].encode())

    return speak(script, {Code[name]: value for name, value in settings.items()})
