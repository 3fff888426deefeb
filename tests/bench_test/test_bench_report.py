"""Medians and ratios are taken round by round, and verdicts stand beside what they are held against."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.report import RowResult, amount, document, table
from tests.bench.rows import ROWS, Budget, LoadRow, MemoryRow, SizeRow, StartRow

BUDGETS = (Budget(1.5, 1.2, against=("nginx",)), Budget(0.65, against=("envoy",)))
ROW = LoadRow("small", "small GET", "/small", BUDGETS)


def result_of(**cpu: list[float]) -> RowResult:
    """A result of `ROW` with these microseconds a request, by proxy."""
    result = RowResult(ROW)
    for proxy, values in cpu.items():
        for value in values:
            result.add(proxy, cpu_us=value, requests_per_second=1e6 / value, p50_us=1500.0)
    return result


def lines_of(result: RowResult) -> dict[str, str]:
    """The lines of the table by the proxy they are about."""
    lines = table([result]).splitlines()[2:]
    return {line.removeprefix(ROW.title).split()[0]: line for line in lines}


def test_a_ratio_is_the_median_of_the_rounds_not_the_ratio_of_the_medians():
    result = result_of(sidecar=[10, 40, 30], nginx=[10, 20, 60])
    assert result.ratio("nginx") == 1.0
    assert result.median("sidecar", "cpu_us") == 30


@given(st.lists(st.floats(0.1, 1e6), min_size=1), st.floats(0.1, 10))
def test_a_proxy_that_costs_a_multiple_in_each_round_has_that_ratio(theirs: list[float], factor: float):
    result = result_of(sidecar=[value * factor for value in theirs], nginx=theirs)
    assert result.ratio("nginx") == pytest.approx(factor)


def test_there_is_no_ratio_without_sidecar_nor_to_itself():
    assert result_of(nginx=[10]).ratio("nginx") is None
    assert result_of(sidecar=[10]).ratio("sidecar") is None
    assert result_of(sidecar=[10]).ratio("nginx") is None


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(1.2, "stretch"), (1.21, "pass"), (1.5, "pass"), (1.51, "miss")]
)
def test_a_limit_is_kept_when_it_is_met_exactly(ratio: float, verdict: str):
    assert BUDGETS[0].verdict(ratio) == verdict


def test_the_table_has_a_verdict_beside_each_neighbour_of_a_budget():
    lines = lines_of(result_of(sidecar=[20], nginx=[10], envoy=[40], caddy=[80]))
    assert lines["nginx"].split()[1:8] == ["10.0", "us", "2.00", "x", "<=", "1.5", "(1.2)"]
    assert " miss " in lines["nginx"]
    assert "0.50 x  <= 0.65" in lines["envoy"]
    assert " pass " in lines["envoy"]
    assert "0.25 x" in lines["caddy"]
    assert "<=" not in lines["caddy"]


def test_the_table_without_sidecar_has_figures_and_no_verdict():
    lines = lines_of(result_of(nginx=[16], haproxy=[17]))
    assert "16.0 us" in lines["nginx"]
    assert "62,500" in lines["nginx"]
    assert "1.50 ms" in lines["nginx"]
    assert not any(word in table([result_of(nginx=[16])]) for word in ("pass", "miss", " x "))


def test_an_amount_of_memory_is_held_against_sidecar_itself():
    result = RowResult(MemoryRow("idle", "PSS", (Budget(32 * 2**20, 24 * 2**20),)))
    result.add("sidecar", pss=25 * 2**20)
    result.add("nginx", pss=5 * 2**20)
    first, second = table([result]).splitlines()[2:]
    assert "25.0 MiB" in first
    assert "<= 32.0 MiB (24.0 MiB)  pass" in first
    assert "5.00 x" in second
    assert "<=" not in second


def test_a_row_about_the_binary_compares_the_binary():
    result = RowResult(StartRow("start", "first answer", (Budget(0.8, 0.5),)))
    for name, seconds in (("sidecar", 0.4), ("binary", 0.6), ("nginx", 0.02)):
        result.add(name, seconds=seconds)
    sidecar, binary, nginx = table([result]).splitlines()[2:]
    assert "0.400 s      1.50 x" in sidecar
    assert "0.600 s              <= 0.800 s (0.500 s)  pass" in binary
    assert "0.020 s     30.00 x" in nginx
    assert "<=" not in sidecar + nginx
    told = document([result], {})["rows"][0]
    assert (told["kind"], told["subject"], told["connections"]) == ("start", "binary", 0)


def test_the_size_of_the_binary_has_a_verdict():
    result = RowResult(SizeRow("size", "size", (Budget(30e6, 20e6),)))
    result.add("binary", size=31_000_000)
    assert "31.0 MB" in table([result])
    assert "<= 30.0 MB (20.0 MB)  miss" in table([result])


def test_columns_are_aligned():
    lines = table([result_of(sidecar=[20], nginx=[1234.5])]).splitlines()
    column = lines[0].index("figure") + len("figure")
    assert all(line[column - 2 : column] == "us" for line in lines[2:])


def test_the_document_keeps_every_round_and_is_json():
    about = {"versions": {"nginx": "1"}}
    told = json.loads(json.dumps(document([result_of(sidecar=[20, 22, 21], nginx=[20, 20, 20])], about)))
    assert told["versions"] == {"nginx": "1"}
    row = told["rows"][0]
    assert row["proxies"]["sidecar"]["rounds"]["cpu_us"] == [20, 22, 21]
    nginx = row["proxies"]["nginx"]
    assert nginx["ratio"] == 1.05
    assert nginx["budget"] == {"limit": 1.5, "stretch": 1.2, "verdict": "stretch"}


@pytest.mark.parametrize(
    ("value", "figure", "told"),
    [
        (16.04, "cpu_us", "16.0 us"),
        (13_900, "cpu_us", "13,900 us"),
        (24 * 2**20, "pss", "24.0 MiB"),
        (8192, "pss", "8.0 KiB"),
        (-512, "pss", "-0.5 KiB"),
        (0.4567, "seconds", "0.457 s"),
        (1.5, "seconds", "1.50 s"),
        (19_990_000, "size", "20.0 MB"),
    ],
)
def test_an_amount_has_its_unit(value: float, figure: str, told: str):
    assert amount(value, figure) == told


def test_rows_have_names_of_their_own():
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_a_stretch_without_a_limit_is_reached_or_not_and_never_missed():
    budget = Budget(None, 1.5, against=("nginx",))
    assert budget.verdict(1.5) == "stretch"
    assert budget.verdict(1.6) == ""
    result = RowResult(LoadRow("h2", "h2", "/small", (budget,)))
    for name, value in (("sidecar", 12.0), ("nginx", 10.0)):
        result.add(name, cpu_us=value)
    assert "1.20 x  <= (1.5)  stretch" in table([result])


def test_who_is_not_in_a_row_is_in_its_table_and_in_the_document():
    result = result_of(sidecar=[20])
    result.unable["nginx"] = "it was built without TLS"
    result.add("envoy", cpu_us=1)
    result.drop("envoy", "envoy exited with 1")
    lines = lines_of(result)
    assert lines["nginx"].split()[:2] == ["nginx", "unable"]
    assert lines["envoy"].split()[:2] == ["envoy", "failed"]
    told = document([result], {})["rows"][0]
    assert (told["unable"], told["failed"]) == (result.unable, result.failed)
