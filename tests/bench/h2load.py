"""The load generator of HTTP/2 and of full TLS handshakes: h2load, one thread.

For handshakes it is told to open its connections at a rate, one request on each: unlike wrk it keeps no
session, so none can be resumed.
"""

from __future__ import annotations

import re
from pathlib import Path

from .load import Load, believe, headers, told_by, url
from .process import BenchError
from .proxy import find
from .rows import GRPC_MESSAGE, GRPC_PATH, POST_SIZE, LoadRow

#: Requests at a time on one connection.
STREAMS = 4
#: New connections per second, a hundredth of them at a time: what every proxy can follow on one core.
HANDSHAKES_PER_SECOND = 1000

_REQUESTS = re.compile(r"^requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout$", re.M)
_STATUSES = re.compile(r"^status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx$", re.M)
_TRAFFIC = re.compile(r"^traffic: .*\((\d+)\) data$", re.M)
_FINISHED = re.compile(r"^finished in ([\d.]+)(us|ms|s|m|h),", re.M)
_UNITS = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000}


def find_h2load() -> str:
    """The path of h2load.

    Raises `BenchError` if it is not installed.
    """
    found = find("h2load")
    if found is None:
        raise BenchError("h2load is not installed: apt-get install nghttp2-client")
    return str(found)


def run(row: LoadRow, port: int, seconds: int, core: int, folder: Path) -> Load:
    """Ask the server on `port` for `seconds`, from `core`.

    Raises `BenchError` if h2load fails or its result cannot be believed.
    """
    log = folder / f"{row.name}.h2load"
    log.unlink(missing_ok=True)  # it is appended to
    command = [
        find_h2load(),
        "-t1",
        f"--log-file={log}",
        *options(row, seconds),
        *posted(row, folder),
        url(row, port),
    ]
    output = told_by(command, seconds, core)
    if row.wire.tls and "TLS Protocol: TLSv1.3" not in output:
        raise BenchError(f"h2load did not speak TLS 1.3:\n{output[-2000:]}")
    return believe(parse(output, log.read_text()), row)


def options(row: LoadRow, seconds: int) -> list[str]:
    """How much to ask, and in which protocol."""
    if row.handshake:
        count = HANDSHAKES_PER_SECOND * seconds
        rate = [f"-r{HANDSHAKES_PER_SECOND // 100}", "--rate-period=10ms"]
        return [f"-n{count}", f"-c{count}", *rate, "--h1"]
    # Offered nothing else, a server that cannot HTTP/2 ends the connection.
    return [f"-c{row.connections // STREAMS}", f"-m{STREAMS}", f"-D{seconds}", "--npn-list=h2"]


def posted(row: LoadRow, folder: Path) -> list[str]:
    """The options for what is sent with each request; empty if that is nothing."""
    if not row.post:
        return []
    body = folder / f"{row.name}.body"
    body.write_bytes(GRPC_MESSAGE if row.path == GRPC_PATH else b"x" * POST_SIZE)
    return [f"--data={body}", *(f"--header={line}" for line in headers(row))]


def parse(output: str, log: str) -> Load:
    """The result in the output of h2load and in its log, a line for each answer.

    Raises `BenchError` if there is none.
    """
    requests, statuses = _REQUESTS.search(output), _STATUSES.search(output)
    traffic, finished = _TRAFFIC.search(output), _FINISHED.search(output)
    if not (requests and statuses and traffic and finished):
        raise BenchError(f"h2load gave no result:\n{output[-2000:]}")
    times = response_times(log)
    # What was errored or ran into a timeout is among the failed; so is an answer of 4xx or 5xx.
    refused = sum(int(statuses[number]) for number in (2, 3, 4))
    return Load(
        requests=int(requests[1]),
        bytes=int(traffic[1]),
        duration_us=round(float(finished[1]) * _UNITS[finished[2]]),
        connect=0,
        read=int(requests[3]),
        write=0,
        timeout=int(requests[4]),
        status=refused,
        p50_us=percentile(times, 50),
        p99_us=percentile(times, 99),
    )


def response_times(log: str) -> list[int]:
    """Microseconds of each answer, in rising order; a line is start, status and time (-1: none)."""
    times = (int(line.split("\t")[2]) for line in log.splitlines() if line.count("\t") == 2)
    return sorted(time for time in times if time >= 0)


def percentile(values: list[int], percent: int) -> int:
    """The value below which `percent` of the sorted `values` are; 0 if there are none."""
    return values[min(len(values) * percent // 100, len(values) - 1)] if values else 0
