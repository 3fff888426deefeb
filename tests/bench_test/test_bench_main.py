"""Rows and proxies are chosen by name or group, and what is missing stops nothing but itself."""

from __future__ import annotations

import argparse

import pytest

from tests.bench.__main__ import absences, taking_part
from tests.bench.choice import chosen, installed
from tests.bench.neighbours import PROXIES, Binary, Nginx, Sidecar
from tests.bench.process import BenchError
from tests.bench.report import RowResult
from tests.bench.rows import BINARY, ROWS

SMALL = next(row for row in ROWS if row.name == "small")
ABOUT_BINARY = [row for row in ROWS if row.group == BINARY]
HERE = [Sidecar(), Binary(), Nginx()]


def test_a_group_is_all_its_rows_in_their_order():
    assert list(chosen(ROWS)("binary")) == ABOUT_BINARY
    assert [row.name for row in chosen(ROWS)("binary-start, small")] == ["small", "binary-start"]
    assert len(ABOUT_BINARY) == 3


def test_the_group_is_part_of_the_default():
    assert set(ABOUT_BINARY) < set(ROWS)
    assert any(proxy.name == BINARY for proxy in PROXIES)


@pytest.mark.parametrize("text", ["", " , ", "small,nothing", "kind"])
def test_a_name_that_is_nobodys_is_refused(text: str):
    with pytest.raises(argparse.ArgumentTypeError):
        chosen(ROWS)(text)


def test_the_binary_is_measured_in_its_rows_and_where_it_is_named():
    assert [proxy.name for proxy in taking_part(SMALL, HERE, ())] == ["sidecar", "nginx"]
    assert [proxy.name for proxy in taking_part(SMALL, HERE, HERE)] == ["sidecar", "binary", "nginx"]
    for row in ABOUT_BINARY:
        assert [proxy.name for proxy in taking_part(row, HERE, ())] == ["sidecar", "binary", "nginx"]


def test_rows_about_a_binary_that_was_not_made_are_left_out():
    for row in ABOUT_BINARY:
        assert taking_part(row, [Sidecar(), Nginx()], ()) == []


def test_a_binary_that_was_not_made_is_missing_with_the_remedy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Binary, "binary", lambda self: None)
    monkeypatch.setattr(Sidecar, "binary", lambda self: __file__)
    here, missing = installed([])
    assert BINARY in missing
    assert BINARY not in [proxy.name for proxy in here]
    with pytest.raises(BenchError, match=r"not installed: binary \(make binary first\)"):
        installed([Binary()])


def test_who_is_absent_is_told_with_the_row_and_the_reason():
    result = RowResult(SMALL, failed={"envoy": "envoy exited with 1"})
    assert absences(result, result.failed) == ["small GET, 90 B: envoy: envoy exited with 1"]
    assert absences(result, result.unable) == []


def test_tls_and_http_2_are_groups():
    names = [row.name for row in chosen(ROWS)("tls,http2")]
    assert names[0] == "tls-small"
    assert {"tls-handshake", "tls-upstream-small", "h2-small", "h2c-small"} < set(names)
    assert "small" not in names
