"""An upstream that records what it is sent and answers with what the test tells it, byte for byte.

Law: a request is recorded as it came. Only the framing of its body is undone, strictly, so that bodies can
be compared; a message that ends before its framing says so is recorded as incomplete.
"""

from __future__ import annotations

import contextlib
import enum
import socket
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

TIMEOUT = 10.0
_PIECE = 65536

Fields = list[tuple[bytes, bytes]]


class Act(enum.Enum):
    """What a script does besides sending bytes."""

    READ_BODY = "read the rest of the request"
    CONTINUE = "send 100 (Continue) when the request asks for it"
    AWAIT_CLIENT = "wait until the client has done all its steps"
    HALF_CLOSE = "end sending, go on receiving"
    CLOSE = "close"
    RESET = "cut the connection with a RST"
    SEND_ON = "send until the other side takes no more of it"
    READ_ALL = "say nothing and record what comes until the other side ends"


class Read(int):
    """A step: record this many bytes of a tunnel."""


#: Bytes are sent; the rest is done. A script without READ_BODY leaves the body unread.
Step = bytes | Act | Read
Script = Sequence[Step]


class Ended(Exception):
    """The other side sends no more; `how`: closed, reset, or silent for too long."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


class Wire:
    """The receiving side of a connection, read by the rules of RFC 9112."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.pending = b""

    def _more(self) -> None:
        try:
            data = self.sock.recv(_PIECE)
        except ConnectionError as error:
            raise Ended("reset") from error
        except TimeoutError as error:
            raise Ended("silent") from error
        if not data:
            raise Ended("closed")
        self.pending += data

    def line(self) -> bytes:
        """The next line without its CRLF. Raises Ended."""
        while b"\r\n" not in self.pending:
            self._more()
        line, _, self.pending = self.pending.partition(b"\r\n")
        return line

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes. Raises Ended."""
        while len(self.pending) < size:
            self._more()
        data, self.pending = self.pending[:size], self.pending[size:]
        return data

    def some(self) -> bytes:
        """What has come, at least a byte. Raises Ended."""
        if not self.pending:
            self._more()
        data, self.pending = self.pending, b""
        return data

    def fields(self) -> Fields:
        """The field lines up to the empty line, values without the blanks around them. Raises Ended."""
        fields = []
        while line := self.line():
            name, colon, value = line.partition(b":")
            assert colon, f"not a field line: {line!r}"
            fields.append((name, value.strip(b" \t")))
        return fields

    def body(self, fields: Fields, into: bytearray) -> Fields:
        """Read a body into `into`; its trailers. Raises Ended, with what came until then in `into`."""
        if values(fields, b"transfer-encoding"):
            while size := int(self.line().partition(b";")[0], 16):
                self._bytes(size, into)
                assert self.line() == b"", "a chunk is longer than it says"
            return self.fields()
        self._bytes(int((values(fields, b"content-length") or [b"0"])[0]), into)
        return []

    def _bytes(self, size: int, into: bytearray) -> None:
        end = len(into) + size
        while len(into) < end:
            some = self.some()
            left = end - len(into)
            into += some[:left]
            self.pending = some[left:]


def values(fields: Fields, name: bytes) -> list[bytes]:
    """The values of a field, in order; `name` in lower case."""
    return [value for key, value in fields if key.lower() == name]


def reset(sock: socket.socket) -> None:
    """Close with a RST instead of a FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@dataclass(slots=True)
class Recorded:
    """One request as it came."""

    line: bytes
    fields: Fields
    body: bytearray = field(default_factory=bytearray)
    trailers: Fields = field(default_factory=list)
    tunnel: bytearray = field(default_factory=bytearray)
    is_complete: bool = False


class RecordingUpstream:
    """The server. `play` tells what the next requests get; `recorded` waits, then tells what they were.

    The first request gets the first script, and so on; the last one is played again. A connection stays open
    between requests unless its script ends it.
    """

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._socket.getsockname()[1]
        self._changed = threading.Condition()
        self._scripts: Sequence[Script] = ()
        self._records: list[Recorded] = []
        self._busy = 0
        self.client_is_done = threading.Event()
        self._open: set[socket.socket] = set()
        self.errors: list[BaseException] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def play(self, scripts: Sequence[Script]) -> None:
        """From now on the requests get these."""
        self.client_is_done.clear()
        with self._changed:
            self._scripts = scripts
            self._records = []

    def recorded(self) -> list[Recorded]:
        """The requests since `play`, in their order, when nothing goes on any more."""
        with self._changed:
            assert self._changed.wait_for(lambda: not self._busy, TIMEOUT), (
                "a script does not come to its end"
            )
            if self.errors:
                raise self.errors.pop()
            return self._records

    def stop(self) -> None:
        """Close everything."""
        for sock in (self._socket, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._accepting.join(TIMEOUT)
        self._socket.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._socket.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.add(sock)
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        wire = Wire(sock)
        try:
            while self._exchange(wire):
                pass
        except (Ended, OSError):
            pass
        except BaseException as error:  # noqa: BLE001 - raised again in the thread of the test
            self.errors.append(error)
        finally:
            self._open.discard(sock)
            sock.close()

    def _exchange(self, wire: Wire) -> bool:
        wire.pending = wire.some()
        with self._changed:
            self._busy += 1
        try:
            return self._answer(wire)
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def _answer(self, wire: Wire) -> bool:
        record = Recorded(wire.line(), [])
        with self._changed:
            script = self._scripts[min(len(self._records), len(self._scripts) - 1)]
            self._records.append(record)
        record.fields = wire.fields()
        wire.sock.settimeout(TIMEOUT)
        for step in script:
            if isinstance(step, bytes):
                wire.sock.sendall(step)
            elif isinstance(step, Read):
                record.tunnel += wire.read(step)
            elif not self._act(wire, step, record):
                return False
        wire.sock.settimeout(None)
        return record.is_complete

    def _act(self, wire: Wire, act: Act, record: Recorded) -> bool:
        """Do it; whether the connection goes on."""
        if act is Act.READ_BODY:
            record.trailers = wire.body(record.fields, record.body)
            record.is_complete = True
        elif act is Act.CONTINUE:
            if values(record.fields, b"expect"):
                wire.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        elif act is Act.AWAIT_CLIENT:
            assert self.client_is_done.wait(TIMEOUT), "the client does not get what it awaits"
        elif act is Act.HALF_CLOSE:
            wire.sock.shutdown(socket.SHUT_WR)
        elif act is Act.RESET:
            reset(wire.sock)
        elif act is Act.CLOSE:
            wire.sock.close()
        elif act is Act.SEND_ON:
            with contextlib.suppress(ConnectionError):
                while True:
                    wire.sock.sendall(bytes(_PIECE))
        else:
            self._read_all(wire, record)
        return act in (Act.READ_BODY, Act.CONTINUE, Act.AWAIT_CLIENT, Act.HALF_CLOSE)

    def _read_all(self, wire: Wire, record: Recorded) -> None:
        try:
            while True:
                record.tunnel += wire.some()
        except Ended as ended:
            assert ended.how != "silent", "the proxy keeps a connection that nobody needs"
