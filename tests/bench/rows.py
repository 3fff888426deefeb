"""The rows of the benchmark: what is sent, and the budget that is set on it.

A new row is a new entry of `ROWS`. Those of the group `binary` are about the one-file binary. What a row
speaks is its `Wire`; every proxy configures its listener and its upstream by that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

KIB = 1024
MIB = 1024 * KIB
MB = 1_000_000

#: Bodies that the upstream serves, by the path that asks for them.
BODIES = {"/small": 90, "/64k": 64 * KIB, "/10m": 10 * MIB}
#: The path that takes a POST, and the length of what is posted.
POST_PATH = "/post"
POST_SIZE = 64 * KIB

#: The path of a unary call of gRPC, and its message, which is sent and answered: a frame of 20 bytes.
GRPC_PATH = "/bench.Echo/Say"
GRPC_MESSAGE = b"\x00\x00\x00\x00\x14" + b"x" * 20

#: A budget beside nginx is held against each nginx that is measured.
NGINX = ("nginx", "nginx-system")

#: Groups of rows: those over TLS with HTTP/1.1, those over HTTP/2.
TLS = "tls"
HTTP2 = "http2"

#: What the benchmark is about: the installed command, and the same as one file.
SIDECAR = "sidecar"
BINARY = "binary"


@dataclass(frozen=True, slots=True)
class Budget:
    """What a row's subject may use: a ratio to the figure of these neighbours, or an amount in its unit.

    Without a `limit` there is only the stretch to reach, and nothing to miss.
    """

    limit: float | None
    stretch: float | None = None
    against: tuple[str, ...] = ()

    def verdict(self, value: float) -> str:
        """`stretch`, `pass` or `miss`; nothing for a stretch without a limit that is not reached."""
        if self.stretch is not None and value <= self.stretch:
            return "stretch"
        if self.limit is None:
            return ""
        return "pass" if value <= self.limit else "miss"


@dataclass(frozen=True, slots=True)
class Wire:
    """What a row speaks to the proxy and to the upstream: with TLS (1.3) or not, with HTTP/2 or not."""

    tls: bool = False
    http2: bool = False
    upstream_tls: bool = False
    upstream_http2: bool = False


PLAIN = Wire()


@dataclass(frozen=True, slots=True)
class LoadRow:
    """Requests as fast as the proxy answers; the figure is CPU time per request.

    `by_bytes` counts answers by the bytes that arrived: when an answer is large, those that are unfinished
    at the end of a run are a good part of it. `close` takes a new connection for every request; with TLS
    each resumes the session of an earlier one. `handshake` takes a new connection with a full handshake for
    every request, at a rate that every proxy can follow.
    """

    kind: ClassVar[str] = "load"
    subject: ClassVar[str] = SIDECAR
    name: str
    title: str
    path: str
    budgets: tuple[Budget, ...] = ()
    post: bool = False
    close: bool = False
    by_bytes: bool = False
    connections: int = 64
    figure: str = "cpu_us"
    group: str = ""
    wire: Wire = PLAIN
    handshake: bool = False

    @property
    def answer_size(self) -> int:
        """Length of the body of one answer, in bytes."""
        if self.path == GRPC_PATH:
            return len(GRPC_MESSAGE)
        return 0 if self.post else BODIES[self.path]


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """Memory of a proxy that nobody asks; with `connections`, what each of so many idle ones adds.

    The figure `pss` depends on what else runs: the interpreter of the benchmark shares pages with that of
    sidecar. `alone` is the same without such luck.
    """

    kind: ClassVar[str] = "memory"
    name: str
    title: str
    budgets: tuple[Budget, ...] = ()
    connections: int = 0
    figure: str = "pss"
    group: str = ""
    subject: str = SIDECAR


@dataclass(frozen=True, slots=True)
class StartRow:
    """Seconds from the start of the command to its first answer, on a route that asks nobody else."""

    kind: ClassVar[str] = "start"
    group: ClassVar[str] = BINARY
    subject: ClassVar[str] = BINARY
    connections: ClassVar[int] = 0
    name: str
    title: str
    budgets: tuple[Budget, ...] = ()
    figure: str = "seconds"


@dataclass(frozen=True, slots=True)
class SizeRow:
    """Bytes of the file that is shipped."""

    kind: ClassVar[str] = "size"
    group: ClassVar[str] = BINARY
    subject: ClassVar[str] = BINARY
    connections: ClassVar[int] = 0
    name: str
    title: str
    budgets: tuple[Budget, ...] = ()
    figure: str = "size"


Row = LoadRow | MemoryRow | StartRow | SizeRow

ROWS: tuple[Row, ...] = (
    LoadRow(
        "small",
        "small GET, 90 B",
        "/small",
        (Budget(1.5, 1.2, against=NGINX), Budget(0.65, against=("envoy",))),
    ),
    LoadRow("64k", "64 KiB response", "/64k", (Budget(0.75, 0.6, against=NGINX),)),
    LoadRow(
        "10m",
        "10 MiB response",
        "/10m",
        (Budget(0.5, 0.35, against=NGINX),),
        by_bytes=True,
        connections=16,
    ),
    LoadRow("post", "64 KiB POST", POST_PATH, (Budget(1.0, 0.8, against=NGINX),), post=True),
    LoadRow(
        "connect",
        "new connection per request",
        "/small",
        (Budget(2.0, 1.5, against=NGINX),),
        close=True,
    ),
    LoadRow(
        "tls-small",
        "small GET, TLS 1.3",
        "/small",
        (Budget(1.5, 1.2, against=NGINX),),
        group=TLS,
        wire=Wire(tls=True),
    ),
    LoadRow("tls-64k", "64 KiB response, TLS 1.3", "/64k", group=TLS, wire=Wire(tls=True)),
    LoadRow(
        "tls-handshake",
        "full TLS 1.3 handshake per request",
        "/small",
        (Budget(1.5, 1.2, against=NGINX),),
        group=TLS,
        wire=Wire(tls=True),
        handshake=True,
    ),
    LoadRow(
        "tls-resume",
        "resumed TLS 1.3 session per request",
        "/small",
        group=TLS,
        wire=Wire(tls=True),
        close=True,
    ),
    LoadRow(
        "tls-upstream-small",
        "small GET, TLS 1.3 to the upstream",
        "/small",
        group=TLS,
        wire=Wire(upstream_tls=True),
    ),
    LoadRow(
        "h2-small",
        "small GET, HTTP/2 over TLS",
        "/small",
        (Budget(None, 1.5, against=NGINX), Budget(0.8, against=("envoy",))),
        group=HTTP2,
        wire=Wire(tls=True, http2=True),
    ),
    LoadRow(
        "h2-64k", "64 KiB response, HTTP/2 over TLS", "/64k", group=HTTP2, wire=Wire(tls=True, http2=True)
    ),
    LoadRow(
        "grpc",
        "gRPC call, HTTP/2 on both sides",
        GRPC_PATH,
        group=HTTP2,
        wire=Wire(tls=True, http2=True, upstream_http2=True),
        post=True,
    ),
    LoadRow("h2c-small", "small GET, HTTP/2 without TLS", "/small", group=HTTP2, wire=Wire(http2=True)),
    MemoryRow("idle", "PSS, idle", (Budget(32 * MIB, 24 * MIB),)),
    MemoryRow("alone", "PSS, idle, as if alone", figure="alone"),
    MemoryRow(
        "connections",
        "PSS per idle connection",
        (Budget(12 * KIB, 8 * KIB),),
        connections=5000,
    ),
    SizeRow("binary-size", "size of the binary", (Budget(30 * MB, 20 * MB),)),
    StartRow("binary-start", "exec to first answer", (Budget(0.8, 0.5),)),
    MemoryRow(
        "binary-idle", "PSS of the tree, idle", (Budget(32 * MIB, 24 * MIB),), group=BINARY, subject=BINARY
    ),
)
