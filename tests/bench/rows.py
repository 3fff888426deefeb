"""The rows of the benchmark: what is sent, and the budget that is set on it.

A new row is a new entry of `ROWS`. Those of the group `binary` are about the one-file binary. A row over
TLS or HTTP/2 also needs a listener in the configurations of `neighbours` and, for HTTP/2, a load generator
that speaks it.
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

#: A budget beside nginx is held against each nginx that is measured.
NGINX = ("nginx", "nginx-system")

#: What the benchmark is about: the installed command, and the same as one file.
SIDECAR = "sidecar"
BINARY = "binary"


@dataclass(frozen=True, slots=True)
class Budget:
    """What a row's subject may use: a ratio to the figure of these neighbours, or an amount in its unit."""

    limit: float
    stretch: float | None = None
    against: tuple[str, ...] = ()

    def verdict(self, value: float) -> str:
        """`stretch`, `pass` or `miss`."""
        if self.stretch is not None and value <= self.stretch:
            return "stretch"
        return "pass" if value <= self.limit else "miss"


@dataclass(frozen=True, slots=True)
class LoadRow:
    """Requests as fast as the proxy answers; the figure is CPU time per request.

    `by_bytes` counts answers by the bytes that arrived: when an answer is large, those that are unfinished
    at the end of a run are a good part of it.
    """

    kind: ClassVar[str] = "load"
    group: ClassVar[str] = ""
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

    @property
    def answer_size(self) -> int:
        """Length of the body of one answer, in bytes."""
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
