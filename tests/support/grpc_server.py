"""A gRPC server in a process of its own: all four kinds of calls, on bytes, with grpcio's generic handlers.

    python grpc_server.py NAME PORT JOURNAL [WORD=VALUE …]

Words: max_age_ms, max_streams, certificate and key (files: it speaks TLS then), compress.
It prints its port once it listens. The journal gets a line for each call that it executes (`NAME method
text`), and one for each that ends before it has answered (`cancelled method`).
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any, Final

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

SERVICE: Final = "test.Calls"
_THREADS: Final = 260

CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


class Calls(grpc.GenericRpcHandler):
    """The methods of `test.Calls`."""

    def __init__(self, name: str, journal: Path, states: health.HealthServicer) -> None:
        self._name = name
        self._journal = journal.open("a", buffering=1)
        self._states = states
        self._lock = threading.Lock()

    def service(self, details: Any) -> Any:
        """The handler of a method; None: it is unknown."""
        path = details.method.split("/")
        found = getattr(self, path[2].lower(), None) if path[1] == SERVICE else None
        if found is None:
            return None
        kind = {
            "upload": grpc.stream_unary_rpc_method_handler,
            "download": grpc.unary_stream_rpc_method_handler,
            "chat": grpc.stream_stream_rpc_method_handler,
            "speak": grpc.stream_stream_rpc_method_handler,
        }
        return kind.get(path[2].lower(), grpc.unary_unary_rpc_method_handler)(found)

    def _note(self, text: str) -> None:
        with self._lock:
            self._journal.write(f"{text}\n")

    # -- unary

    def echo(self, message: bytes, context: Any) -> bytes:
        """The message, its metadata as initial and as trailing one."""
        given = [(key, value) for key, value in context.invocation_metadata() if key.startswith("x-")]
        context.send_initial_metadata(given)
        context.set_trailing_metadata([(f"{key[:2]}end-{key[2:]}", value) for key, value in given])
        self._note(f"{self._name} echo {message[:20].decode('latin-1')}")
        return message

    def name(self, message: bytes, context: Any) -> bytes:
        """Who answers."""
        self._note(f"{self._name} name {message[:20].decode('latin-1')}")
        return self._name.encode()

    def fail(self, message: bytes, context: Any) -> bytes:
        """Ends with the status whose number comes first, and the rest as its message."""
        number, _, text = message.decode().partition(" ")
        context.set_trailing_metadata([("x-why", "asked"), ("x-why-bin", b"\0\xff")])
        context.abort(CODES[int(number)], text)
        raise AssertionError

    def fields(self, message: bytes, context: Any) -> bytes:
        """All metadata that came, a line each."""
        found = context.invocation_metadata()
        return "\n".join(f"{key}: {value!r}" for key, value in found).encode()

    def deadline(self, message: bytes, context: Any) -> bytes:
        """Seconds that are left; empty: no bound."""
        left = context.time_remaining()
        return b"" if left is None or left > 1e9 else f"{left:.3f}".encode()

    def hang(self, message: bytes, context: Any) -> bytes:
        """Never answers."""
        ended = threading.Event()
        context.add_callback(ended.set)
        self._note(f"{self._name} hang {message.decode()}")
        ended.wait(60)
        self._note(f"cancelled hang {message.decode()}")
        return b""

    def state(self, message: bytes, context: Any) -> bytes:
        """Set what the health service says: `service STATE`."""
        service, _, state = message.decode().rpartition(" ")
        self._states.set(service, health_pb2.HealthCheckResponse.ServingStatus.Value(state))
        return b""

    # -- streams

    def upload(self, messages: Iterator[bytes], context: Any) -> bytes:
        """How many messages came, and their bytes in all."""
        count = size = 0
        for message in messages:
            count += 1
            size += len(message)
        return f"{count} {size}".encode()

    def download(self, message: bytes, context: Any) -> Iterator[bytes]:
        """`count size [wait]`: so many messages of so many bytes; then the end, or a wait for it."""
        count, size, *then = message.decode().split()
        ended = threading.Event()
        context.add_callback(ended.set)
        self._note(f"{self._name} download {message.decode()}")
        for number in range(int(count)):
            yield number.to_bytes(4, "big").ljust(int(size), b".")
        if then == ["wait"]:
            ended.wait(60)
            self._note("cancelled download")

    def chat(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """Each message comes back."""
        context.add_callback(lambda: self._note("over chat"))
        yield from messages

    def speak(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """The server speaks first, then waits for each answer."""
        yield b"hello"
        for message in messages:
            yield b"again " + message


def _words(given: list[str]) -> dict[str, str]:
    return {word.partition("=")[0]: word.partition("=")[2] for word in given}


def main(name: str, port: str, journal: str, *given: str) -> None:
    """Serve until killed."""
    words = _words(list(given))
    options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
    if "max_age_ms" in words:
        options.append(("grpc.max_connection_age_ms", int(words["max_age_ms"])))
    if "max_streams" in words:
        options.append(("grpc.max_concurrent_streams", int(words["max_streams"])))
    compression = grpc.Compression.Gzip if "compress" in words else None
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=_THREADS), options=options, compression=compression
    )
    states = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(states, server)
    server.add_generic_rpc_handlers((Calls(name, Path(journal), states),))
    address = f"127.0.0.1:{port}"
    if "certificate" in words:
        pair = (Path(words["key"]).read_bytes(), Path(words["certificate"]).read_bytes())
        bound = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    else:
        bound = server.add_insecure_port(address)
    server.start()
    print(bound, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])
