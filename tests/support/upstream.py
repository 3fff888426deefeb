"""Upstreams that play a script: every byte they send, and every way they fail, is written in the test."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Sequence

from .streams import TIMEOUT, Ended, Stream, reset_connection

Step = Callable[[Stream], None] | bytes


class Close(Exception):
    """Ends a script."""


def read_head(stream: Stream) -> None:
    """A step: read up to the end of a head."""
    stream.read_head()


def read_message(stream: Stream) -> None:
    """A step: read a whole request."""
    stream.read_message()


def read_all(stream: Stream) -> None:
    """A step: read until the other side ends."""
    stream.read_all()


def close(stream: Stream) -> None:
    """A step: close. The end of a script does the same."""
    raise Close


def end_sending(stream: Stream) -> None:
    """A step: half-close."""
    stream.end_sending()


def reset(stream: Stream) -> None:
    """A step: cut the connection with a RST."""
    reset_connection(stream.sock)
    raise Close


def read(size: int) -> Step:
    """A step: read exactly `size` bytes."""

    def step(stream: Stream) -> None:
        stream.read(size)

    return step


def wait(event: threading.Event) -> Step:
    """A step: go on when the test says so."""

    def step(_: Stream) -> None:
        assert event.wait(TIMEOUT), "the test did not set the event"

    return step


def tell(event: threading.Event) -> Step:
    """A step: tell the test that the script has come this far."""
    return lambda _: event.set()


def repeat(*steps: Step) -> Step:
    """A step: play `steps` again and again until the other side ends."""

    def step(stream: Stream) -> None:
        while True:
            _play(stream, steps)

    return step


def respond(body: bytes = b"", status: str = "200 OK", *fields: str) -> bytes:
    """A step: a whole response with a Content-Length."""
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields))
    return head.encode("latin-1") + b"\r\n" + body


def _play(stream: Stream, steps: Sequence[Step]) -> None:
    for step in steps:
        if isinstance(step, bytes):
            stream.send(step)
        else:
            step(stream)


class ScriptedUpstream:
    """A server that plays one script per connection; further connections play the last one again.

    A script is a list of steps: bytes are sent, functions of this module do the rest. Use it in a `with`
    block: leaving it ends it, and fails the test when a step failed for another reason than the end or
    the loss of its connection.
    """

    def __init__(self, *scripts: Sequence[Step], address: str = "127.0.0.1:0") -> None:
        self._scripts = scripts or ([repeat(read_message, respond())],)
        self._socket = _listening(address)
        name = self._socket.getsockname()
        self.address = f"unix:{name}" if isinstance(name, str) else f"127.0.0.1:{name[1]}"
        self.connections: list[Stream] = []  # in the order in which they came
        self._errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def __enter__(self) -> ScriptedUpstream:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.stop()
        if kind is None and self._errors:
            raise self._errors[0]

    def stop(self) -> None:
        """Close the listening socket and all connections."""
        for sock in (self._socket, *(stream.sock for stream in self.connections)):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in (self._accepting, *self._threads):
            thread.join(TIMEOUT)
        self._socket.close()

    def await_connections(self, count: int) -> Stream:
        """Wait for the `count`th connection."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.connections) >= count, TIMEOUT)
            return self.connections[count - 1]

    @property
    def received(self) -> list[bytes]:
        """What came on each connection so far."""
        return [bytes(stream.received) for stream in self.connections]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._socket.accept()
                self._converse(sock)

    def _converse(self, sock: socket.socket) -> None:
        sock.settimeout(TIMEOUT)
        stream = Stream(sock)
        with self._changed:
            script = self._scripts[min(len(self.connections), len(self._scripts) - 1)]
            self.connections.append(stream)
            self._changed.notify_all()
        thread = threading.Thread(target=self._run, args=(stream, script), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, stream: Stream, script: Sequence[Step]) -> None:
        try:
            _play(stream, script)
        except (Ended, Close, OSError):
            pass
        except BaseException as error:  # noqa: BLE001 - raised again in the thread of the test
            self._errors.append(error)
        finally:
            stream.sock.close()


def _listening(address: str) -> socket.socket:
    if address.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(address.removeprefix("unix:"))
    else:
        host, _, port = address.rpartition(":")
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, int(port)))
    sock.listen(128)
    return sock
