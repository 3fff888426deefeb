"""The result of wrk is read exactly, and not believed when it says that something went wrong."""

from __future__ import annotations

import dataclasses

import pytest

from tests.bench.load import Load, answers, believe, parse
from tests.bench.process import BenchError
from tests.bench.rows import BODIES, GRPC_PATH, LoadRow, Wire

SMALL = LoadRow("small", "small", "/small")
LARGE = LoadRow("10m", "large", "/10m", by_bytes=True)
GOOD = Load(
    requests=10_000,
    bytes=10_000 * 340,
    duration_us=2_000_000,
    connect=0,
    read=0,
    write=0,
    timeout=0,
    status=0,
    p50_us=900,
    p99_us=2500,
)
OUTPUT = """\
Running 2s test @ http://127.0.0.1:1/small
  1 threads and 64 connections
  10000 requests in 2.00s, 3.24MB read
wrk-result {"requests":10000,"bytes":3400000,"duration_us":2000000,"connect":0,"read":0,"write":0,\
"timeout":0,"status":0,"p50_us":900,"p99_us":2500}
"""


def test_the_result_is_found_among_the_other_output():
    assert parse(OUTPUT) == GOOD
    assert GOOD.requests_per_second == 5000


def test_output_without_a_result_is_an_error_that_shows_it():
    with pytest.raises(BenchError, match="unable to connect"):
        parse("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_a_good_run_is_believed():
    assert believe(GOOD, SMALL) is GOOD


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"status": 1}, "1 of 10000 answers were errors"),
        ({"requests": 0}, "not one answer"),
        ({"read": 8, "connect": 3}, "11 of 10000 requests were lost: connect 3, read 8"),
        ({"bytes": 10_000 * 90 - 1}, "only 899999 bytes"),
    ],
)
def test_a_bad_run_is_not_believed(change: dict[str, int], told: str):
    with pytest.raises(BenchError, match=told):
        believe(dataclasses.replace(GOOD, **change), SMALL)


def test_a_few_lost_answers_are_believed_and_counted_as_work():
    load = dataclasses.replace(GOOD, read=10)
    assert answers(believe(load, SMALL), SMALL) == 10_010


def test_few_errors_are_believed_only_where_runs_end_amid_calls_to_the_upstream():
    calls = LoadRow("grpc", "call", GRPC_PATH, wire=Wire(upstream_http2=True), post=True)
    load = dataclasses.replace(GOOD, status=10)
    assert believe(load, calls) is load
    with pytest.raises(BenchError, match="11 of 10000 answers were errors"):
        believe(dataclasses.replace(GOOD, status=11), calls)


def test_large_answers_are_counted_by_their_bytes():
    load = dataclasses.replace(GOOD, requests=2, bytes=BODIES["/10m"] * 5 // 2)
    assert answers(load, LARGE) == 2.5
