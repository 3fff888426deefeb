"""The load generator of HTTP/1.1: wrk, one thread, told to report in figures that need no guessing."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .certificate import NAME
from .process import BenchError, pinned
from .rows import GRPC_PATH, POST_SIZE, LoadRow

#: Above this share of lost answers a run says nothing about the proxy.
MAX_LOST = 0.001
#: Seconds that a load generator may take beyond its time.
END_TIMEOUT = 60.0

_MARK = "wrk-result "
# `done` runs once, after the run. A `request` or `response` function would run, and cost, per request.
_SCRIPT = """\
{setup}
done = function(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        '{mark}{{"requests":%d,"bytes":%d,"duration_us":%d,"connect":%d,"read":%d,"write":%d,' ..
        '"timeout":%d,"status":%d,"p50_us":%d,"p99_us":%d}}\\n',
        summary.requests, summary.bytes, summary.duration, errors.connect, errors.read, errors.write,
        errors.timeout, errors.status, latency:percentile(50), latency:percentile(99)))
end
"""
_POST = f"""\
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/octet-stream"
wrk.body = string.rep("x", {POST_SIZE})"""


@dataclass(frozen=True, slots=True)
class Load:
    """What one run saw: answers, bytes and errors, times in microseconds."""

    requests: int
    bytes: int
    duration_us: int
    connect: int
    read: int
    write: int
    timeout: int
    status: int
    p50_us: int
    p99_us: int

    @property
    def lost(self) -> int:
        """Requests without an answer."""
        return self.connect + self.read + self.write + self.timeout

    @property
    def requests_per_second(self) -> float:
        """Answers per second."""
        return self.requests / (self.duration_us / 1e6)


def parse(output: str) -> Load:
    """The result in the output of wrk.

    Raises `BenchError` if there is none.
    """
    for line in output.splitlines():
        if line.startswith(_MARK):
            return Load(**json.loads(line.removeprefix(_MARK)))
    raise BenchError(f"wrk gave no result:\n{output[-2000:]}")


def believe(load: Load, row: LoadRow) -> Load:
    """The same load, if it can be believed.

    Raises `BenchError` for an answer that is not a success, for too many requests without one, and for
    answers that were too short.
    """
    # A run ends amid calls. nginx answers 502 to one that later meets the remains of such a call on the
    # connection to the upstream.
    if load.status > (MAX_LOST * load.requests if row.wire.upstream_http2 else 0):
        raise BenchError(f"{load.status} of {load.requests} answers were errors")
    if load.requests == 0:
        raise BenchError("not one answer")
    if load.lost > MAX_LOST * load.requests:
        raise BenchError(
            f"{load.lost} of {load.requests} requests were lost: connect {load.connect}, "
            f"read {load.read}, write {load.write}, timeout {load.timeout}"
        )
    if load.bytes < load.requests * row.answer_size:
        raise BenchError(f"{load.requests} answers had only {load.bytes} bytes in all")
    return load


def answers(load: Load, row: LoadRow) -> float:
    """The number of answers that the proxy worked for, those that were lost included."""
    if row.by_bytes:
        return load.bytes / row.answer_size
    return load.requests + load.lost


def find_wrk() -> str:
    """The path of wrk.

    Raises `BenchError` if it is not installed.
    """
    found = shutil.which("wrk")
    if found is None:
        raise BenchError("wrk is not installed: apt-get install wrk")
    return found


def run(row: LoadRow, port: int, seconds: float, core: int, folder: Path) -> Load:
    """Ask the server on `port` for `seconds`, from `core`.

    Raises `BenchError` if wrk fails or its result cannot be believed.
    """
    script = folder / f"{row.name}.lua"
    script.write_text(_SCRIPT.format(setup=_POST if row.post else "", mark=_MARK))
    command = [find_wrk(), "-t1", f"-c{row.connections}", f"-d{seconds:g}s", "-s", str(script)]
    if row.close:
        command += ["-H", "Connection: close"]
    command.append(url(row, port))
    return believe(parse(told_by(command, seconds, core)), row)


def url(row: LoadRow, port: int) -> str:
    """What is asked; over TLS by the name in the certificate, which is then sent as SNI too."""
    return f"https://{NAME}:{port}{row.path}" if row.wire.tls else f"http://127.0.0.1:{port}{row.path}"


def headers(row: LoadRow) -> list[str]:
    """The field lines that what is posted needs."""
    if row.path == GRPC_PATH:
        return ["Content-Type: application/grpc", "TE: trailers"]
    return ["Content-Type: application/octet-stream"] if row.post else []


def told_by(command: list[str], seconds: float, core: int) -> str:
    """The output of a load generator that works for `seconds` on `core`.

    Raises `BenchError` if it fails or does not come to an end.
    """
    name = Path(command[0]).name
    try:
        with pinned(core):
            told = subprocess.run(
                command, capture_output=True, text=True, timeout=seconds + END_TIMEOUT, check=False
            )
    except subprocess.TimeoutExpired as failure:
        raise BenchError(f"{name} did not end {END_TIMEOUT:g} s after its time") from failure
    if told.returncode != 0:
        raise BenchError(f"{name} exited with {told.returncode}:\n{told.stdout[-1000:]}{told.stderr[-1000:]}")
    return told.stdout
