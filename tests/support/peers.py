"""Both ends of a connection for tests: a stream that speaks just enough HTTP, and servers made of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any, Final, NamedTuple

_PATIENCE: Final = 20.0
_WITHOUT_BODY: Final = frozenset({"204", "304"})


class Message(NamedTuple):
    """A request or a response."""

    start: str
    fields: dict[str, str]  # by lower-case name; several of one name are joined with ", "
    body: bytes

    @property
    def status(self) -> int:
        """Of a response."""
        return int(self.start.split()[1])

    @property
    def target(self) -> str:
        """Of a request."""
        return self.start.split()[1]


class Stream:
    """One end of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(_PATIENCE)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self._file = sock.makefile("rb")

    @classmethod
    def connect(cls, where: int | str) -> Stream:
        """To a port of 127.0.0.1 or to a socket file."""
        if isinstance(where, int):
            return cls(socket.create_connection(("127.0.0.1", where), _PATIENCE))
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(where)
        return cls(sock)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End both directions."""
        self._file.close()
        self.sock.close()

    def reset(self) -> None:
        """End with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def finish(self) -> None:
        """End our direction alone."""
        self.sock.shutdown(socket.SHUT_WR)

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.sock.sendall(data)

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, fewer only at the end."""
        return self._file.read(size)

    def read_all(self) -> bytes:
        """All until the end; a reset ends it too."""
        data = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := self._file.read1(65536):
                data += piece
        return data

    def is_ended(self, timeout: float = _PATIENCE) -> bool:
        """Whether the other end closes or resets within `timeout` seconds, sending nothing more."""
        self.sock.settimeout(timeout)
        try:
            return self._file.read1(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False
        finally:
            self.sock.settimeout(_PATIENCE)

    def read_head(self) -> Message:
        """A start line and fields, without a body. Raises EOFError when there is none."""
        start = self._file.readline()
        if not start.endswith(b"\r\n"):
            raise EOFError(f"the connection ended after {start!r}")
        fields: dict[str, str] = {}
        while (line := self._file.readline()) != b"\r\n":
            if not line.endswith(b"\r\n"):
                raise EOFError(f"the connection ended after {line!r}")
            name, _, value = line.decode("latin-1").partition(":")
            key = name.lower()
            fields[key] = f"{fields[key]}, {value.strip()}" if key in fields else value.strip()
        return Message(start.decode("latin-1").rstrip("\r\n"), fields, b"")

    def read_message(self, of_head: bool = False) -> Message:
        """A whole message; `of_head`: the response to a HEAD. Raises EOFError when it is cut short."""
        head = self.read_head()
        if of_head or (head.start.startswith("HTTP/") and head.start.split()[1] in _WITHOUT_BODY):
            return head
        return head._replace(body=self._read_body(head))

    def _read_body(self, head: Message) -> bytes:
        if head.fields.get("transfer-encoding") == "chunked":
            body = b""
            while piece := self.read_chunk():
                body += piece
            return body
        if "content-length" in head.fields:
            return self._whole(int(head.fields["content-length"]))
        return self._file.read() if head.start.startswith("HTTP/") else b""

    def read_chunk(self) -> bytes:
        """The data of one chunk; empty for the last one. Raises EOFError."""
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError("the connection ended in a chunked body")
        return self._whole(int(line, 16) + 2)[:-2]

    def _whole(self, size: int) -> bytes:
        data = self.read(size)
        if len(data) < size:
            raise EOFError(f"{len(data)} bytes of {size}")
        return data

    def ask(self, method: str, target: str, body: bytes | None = None, **fields: Any) -> Message:
        """Send a request for host `test`, read its response. `X_Y="z"` sends the field X-Y."""
        self.send(request(method, target, body, **fields))
        return self.read_message(method == "HEAD")


def request(method: str, target: str, body: bytes | None = None, **fields: Any) -> bytes:
    """The bytes of a request; a body has its length."""
    lines = {"Host": "test", **{name.replace("_", "-"): value for name, value in fields.items()}}
    if body is not None:
        lines["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + (body or b"")


def response(body: bytes = b"", status: str = "200 OK", **fields: Any) -> bytes:
    """The bytes of a response with a length."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body


def ask(
    where: int | str, target: str, method: str = "GET", body: bytes | None = None, **fields: str
) -> Message:
    """One request on a connection of its own."""
    with Stream.connect(where) as stream:
        return stream.ask(method, target, body, Connection="close", **fields)


class Accepting:
    """A server whose connections the test takes by hand."""

    def __init__(self, path: str = "") -> None:
        """On a port of 127.0.0.1 that the system chooses, or on the socket file `path`."""
        self.sock = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        self.sock.bind(path or ("127.0.0.1", 0))
        self.sock.listen(1024)
        self.sock.settimeout(_PATIENCE)
        self.address = f"unix:{path}" if path else f"127.0.0.1:{self.sock.getsockname()[1]}"

    def __enter__(self) -> Accepting:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def accept(self) -> Stream:
        """The next connection."""
        return Stream(self.sock.accept()[0])


def described(message: Message) -> bytes:
    """A response that tells what the request was, as JSON."""
    fact = {
        "start": message.start,
        "fields": message.fields,
        "size": len(message.body),
        "sha256": hashlib.sha256(message.body).hexdigest(),
    }
    return response(json.dumps(fact).encode())


class Answering(Accepting):
    """A server that answers each request with `answer(request)`, a thread for each connection."""

    def __init__(self, answer: Callable[[Message], bytes] = described, path: str = "") -> None:
        super().__init__(path)
        self.sock.settimeout(None)
        self._answer = answer
        self._streams: list[Stream] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for stream in self._streams:
            with contextlib.suppress(OSError):
                stream.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()

    def _run(self) -> None:
        while True:
            try:
                stream = Stream(self.sock.accept()[0])
            except OSError:
                return
            stream.sock.settimeout(None)
            self._streams.append(stream)
            threading.Thread(target=self._serve, args=(stream,), daemon=True).start()

    def _serve(self, stream: Stream) -> None:
        with stream, contextlib.suppress(OSError, EOFError):
            while True:
                stream.send(self._answer(stream.read_message()))
