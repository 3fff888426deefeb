"""One request before the load, as the load will ask, and a look at the answer and at what was spoken.

Over TLS and HTTP/2 it is asked by curl, which verifies the certificate, speaks TLS 1.3 and nothing older, and
tells which HTTP it was. A call of gRPC is asked by nghttp too, for its trailer.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from .certificate import Certificate
from .load import headers, url
from .process import BenchError, Server
from .proxy import find
from .rows import GRPC_MESSAGE, GRPC_PATH, PLAIN, POST_SIZE, LoadRow
from .upstream import body

_PATIENCE = 10  # seconds


def verify(server: Server, row: LoadRow, certificate: Certificate) -> None:
    """Ask once.

    Raises `BenchError` if the answer is not what the upstream would have said, or was not said as it should.
    """
    method, sent, expected = ("POST", b"x" * POST_SIZE, b"") if row.post else ("GET", None, body(row.path))
    if row.path == GRPC_PATH:
        sent = expected = GRPC_MESSAGE
    if row.wire == PLAIN:
        status, received = server.ask(method, row.path, sent)
    else:
        status, received = _ask_by_curl(server, row, certificate, sent)
    if status != 200 or received != expected:
        raise BenchError(
            f"{server.name}: {method} {row.path} gave status {status} and {len(received)} bytes, "
            f"not 200 and the upstream's {len(expected)}\n{server.tail()}"
        )
    if row.path == GRPC_PATH:
        _await_trailer(server, row, certificate)


def _ask_by_curl(
    server: Server, row: LoadRow, certificate: Certificate, sent: bytes | None
) -> tuple[int, bytes]:
    curl = find("curl")
    if curl is None:
        raise BenchError("curl is not installed: apt-get install curl")
    command = [str(curl), *curl_options(row, certificate.authority), url(row, server.port)]
    told = subprocess.run(
        command, capture_output=True, input=sent or b"", timeout=_PATIENCE + 10, check=False
    )
    if told.returncode != 0:
        reason = told.stderr.decode(errors="replace").strip()
        raise BenchError(f"{server.name}: curl exited with {told.returncode}: {reason}\n{server.tail()}")
    received, _, spoken = told.stdout.rpartition(b"\n")
    status, version = spoken.decode().split()
    wanted = "2" if row.wire.http2 else "1.1"
    if version != wanted:
        raise BenchError(f"{server.name}: it spoke HTTP/{version}, not HTTP/{wanted}")
    return int(status), received


def _await_trailer(server: Server, row: LoadRow, certificate: Certificate) -> None:
    """Call once more and look for the status of the call, which comes behind the body: curl hides that."""
    nghttp = find("nghttp")
    if nghttp is None:
        raise BenchError("nghttp is not installed: apt-get install nghttp2-client")
    message = certificate.key.with_name("message")
    message.write_bytes(GRPC_MESSAGE)
    options = ["--verbose", f"--timeout={_PATIENCE}", f"--data={message}"]
    command = [str(nghttp), *options, *(f"--header={line}" for line in headers(row)), url(row, server.port)]
    told = subprocess.run(command, capture_output=True, timeout=_PATIENCE + 10, check=False)
    _, _, behind = told.stdout.partition(b"recv DATA")
    if b"grpc-status: 0" not in behind:
        raise BenchError(f"{server.name}: the call ended without its status\n{server.tail()}")


def curl_options(row: LoadRow, authority: Path) -> list[str]:
    """The options by which curl speaks what the row does and nothing else, and tells what that was."""
    options = ["--silent", "--show-error", "--noproxy", "*", "--max-time", str(_PATIENCE)]
    options += ["--write-out", r"\n%{response_code} %{http_version}"]
    if row.wire.tls:
        options += ["--cacert", str(authority), "--tlsv1.3"]
    if row.post:
        options += ["--data-binary", "@-", *(word for line in headers(row) for word in ("--header", line))]
    if row.wire.http2:
        return [*options, "--http2" if row.wire.tls else "--http2-prior-knowledge"]
    return [*options, "--http1.1"]
