"""gRPC for tests: servers in processes of their own, and a client whose messages are bytes."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

import grpc

from tests.support import fleet, grpc_server, http2
from tests.support.peers import Accepting, Stream

SERVICE: Final = grpc_server.SERVICE
#: Seconds that a call may take in a test that is not about its bound.
PATIENCE: Final = 20.0

_KINDS: Final = {
    "upload": "stream_unary",
    "download": "unary_stream",
    "chat": "stream_stream",
    "speak": "stream_stream",
}


class Server(fleet.Server):
    """A `grpc_server`, which may be killed and come back at its port."""

    def _command(self) -> list[str]:
        return [sys.executable, grpc_server.__file__, self.name, str(self.port), str(self.journal)]

    def lines(self, *of: str) -> list[str]:
        """The journal's lines that have all these words."""
        if not self.journal.exists():
            return []
        return [line for line in self.journal.read_text().splitlines() if set(of) <= set(line.split())]


#: As those of `fleet`.
servers = partial(fleet.servers, kind=Server)


class Client:
    """A channel; `client.echo(b"…")` calls a method of `test.Calls`."""

    def __init__(self, target: str, credentials: Any = None, **options: Any) -> None:
        """`options`: channel arguments, with `_` for the dots behind `grpc.`, whose name they lack."""
        given = [(f"grpc.{key}", value) for key, value in options.items()]
        # One channel of the process would share its connection with another.
        given += [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        if credentials is None:
            self.channel = grpc.insecure_channel(target, given)
        else:
            self.channel = grpc.secure_channel(target, credentials, given)

    def __getattr__(self, name: str) -> Any:
        """The method of that name; a call takes bytes, or an iterator of them."""
        return self.method(f"/{SERVICE}/{name.title()}", _KINDS.get(name, "unary_unary"))

    def method(self, path: str, kind: str = "unary_unary") -> Any:
        """Any method."""
        made = getattr(self.channel, kind)(path, _registered_method=False)
        return _Patient(made)

    def close(self) -> None:
        """End the connection."""
        self.channel.close()


class _Patient:
    """A method whose calls have a bound unless `timeout` is given."""

    def __init__(self, method: Any) -> None:
        self._method = method

    def __call__(self, message: Any, **options: Any) -> Any:
        return self._method(message, **({"timeout": PATIENCE} | options))

    def with_call(self, message: Any, **options: Any) -> Any:
        """(answer, call)."""
        return self._method.with_call(message, **({"timeout": PATIENCE} | options))

    def future(self, message: Any, **options: Any) -> Any:
        """A call that is on its way."""
        return self._method.future(message, **({"timeout": PATIENCE} | options))


@contextlib.contextmanager
def client(target: str | int, credentials: Any = None, **options: Any) -> Iterator[Client]:
    """A client of a target, or of a port."""
    made = Client(f"127.0.0.1:{target}" if isinstance(target, int) else target, credentials, **options)
    try:
        yield made
    finally:
        made.close()


def failure(call: Any, *arguments: Any, **options: Any) -> tuple[grpc.StatusCode, str]:
    """How a call fails: its status and message. Raises AssertionError when it does not."""
    try:
        answer = call(*arguments, **options)
        list(answer) if hasattr(answer, "__next__") else None
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise AssertionError(f"it answered {answer!r}")


def metadata(found: Any) -> dict[str, str | bytes]:
    """Metadata of a call, by key."""
    return {entry.key: entry.value for entry in found}


def raw_call(port: int, method: str, message: bytes, fields: dict[str, str]) -> tuple[str, str]:
    """The status and the message that a call ends with, made by a client that keeps no bound itself."""
    with Stream.connect(port) as wire:
        raw = http2.Client(wire)
        raw.greet()
        head = {
            ":method": "POST",
            ":scheme": "http",
            ":path": method,
            ":authority": "test",
            "content-type": "application/grpc",
            "te": "trailers",
        }
        raw.ask(1, list((head | fields).items()), framed(message))
        answer = raw.answer(1)
        assert answer.code == -1 and answer.status == 200
        found = answer.fields | dict(answer.trailers)
        return found["grpc-status"], found.get("grpc-message", "")


def framed(message: bytes) -> bytes:
    """A message as it is in a body."""
    return b"\0" + len(message).to_bytes(4, "big") + message


class Refusing(Accepting):
    """A server that sends a call's message back, and takes none of every second one (REFUSED_STREAM)."""

    def __enter__(self) -> Refusing:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        super().__exit__()

    def _run(self) -> None:
        with self.accept() as wire:
            wire.read(len(http2.PREFACE))
            raw = http2.Client(wire)
            raw.send(http2.settings())
            refuses = False
            while one := raw.next():
                if one.kind != http2.DATA or not one.flags & http2.END_STREAM:
                    continue
                if refuses:
                    raw.send(http2.number(http2.RST_STREAM, one.stream, http2.REFUSED_STREAM))
                else:
                    self._answer(raw, one)
                refuses = not refuses

    @staticmethod
    def _answer(raw: http2.Client, asked: http2.Frame) -> None:
        head = [(":status", "200"), ("content-type", "application/grpc")]
        raw.send(raw.headers(asked.stream, head, ends=False))
        raw.send(http2.frame(http2.DATA, 0, asked.stream, asked.payload))
        raw.send(raw.headers(asked.stream, [("grpc-status", "0")]))
