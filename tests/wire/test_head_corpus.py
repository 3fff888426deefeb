"""The corpus of heads: every file fed whole, byte by byte, and with something behind it.

A file holds one message, head and body, byte for byte; the JSON beside it says what to make of it. Text in
JSON stands for bytes as Latin-1. Rules of responses have no status: whatever is wrong, the client gets 502.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sidecar.errors import Malformed
from sidecar.wire.body import ChunkedDecoder
from sidecar.wire.head import CHUNKED, CLOSE, LENGTH, NONE, Limits, RequestHead, ResponseHead

CORPUS = Path(__file__).parent.parent / "corpus"
FRAMINGS = {"NONE": NONE, "LENGTH": LENGTH, "CHUNKED": CHUNKED, "CLOSE": CLOSE}
#: What an attacker would put behind a message: a message.
TAIL = b"GET /smuggled HTTP/1.1\r\nHost: evil.example\r\n\r\n"
COMMON = ("version", "length", "keep_alive")
OF_REQUESTS = ("host", "port", "expect_continue")
OF_REQUESTS_BYTES = ("method", "target", "origin", "path", "query", "authority")

Expected = dict[str, Any]
Case = tuple[bytes, Expected]


def cases(folder: str) -> list[Any]:
    found = sorted((CORPUS / folder).glob("*.http"))
    return [
        pytest.param((file.read_bytes(), json.loads(file.with_suffix(".json").read_text())), id=file.stem)
        for file in found
    ]


def head_for(expected: Expected) -> RequestHead | ResponseHead:
    limits = Limits(**expected.get("limits", {}))
    if "request_method" in expected:
        return ResponseHead(limits, expected["request_method"].encode())
    return RequestHead(limits)


def wire(text: str | None) -> bytes | None:
    return None if text is None else text.encode("latin-1")


def assert_read(head: RequestHead | ResponseHead, expected: Expected, section: bytes) -> None:
    """Everything the expectation says is what the head says."""
    assert head.raw == section.removeprefix(b"\r\n")
    assert head.framing == FRAMINGS[expected["framing"]]
    assert {name: getattr(head, name) for name in COMMON} == {name: expected[name] for name in COMMON}
    assert head.fields() == [(wire(name), wire(value)) for name, value in expected["fields"]]
    assert head.upgrade == wire(expected.get("upgrade"))
    if isinstance(head, ResponseHead):
        assert (head.status, head.reason) == (expected["status"], wire(expected["reason"]))
        return
    assert {name: getattr(head, name) for name in OF_REQUESTS} == {
        name: expected[name] for name in OF_REQUESTS
    }
    assert {name: getattr(head, name) for name in OF_REQUESTS_BYTES} == {
        name: wire(expected[name]) for name in OF_REQUESTS_BYTES
    }


def body_of(expected: Expected, rest: bytes) -> tuple[bytes, bytes]:
    """(body, what is behind it), as the framing says."""
    framing = FRAMINGS[expected["framing"]]
    if framing == CHUNKED:
        decoder = ChunkedDecoder()
        data, taken = decoder.feed(rest)
        assert decoder.done
        return data, rest[taken:]
    size = len(rest) if framing == CLOSE else expected["length"]
    return rest[:size], rest[size:]


VALID = cases("requests/valid") + cases("responses/valid")
INVALID = cases("requests/invalid") + cases("responses/invalid")


def test_the_corpus_is_all_there():
    """An expectation stands beside every message and a message beside every expectation."""
    assert len(cases("requests/valid") + cases("requests/invalid")) >= 60
    assert len(cases("responses/valid") + cases("responses/invalid")) >= 40
    assert {file.with_suffix("") for file in CORPUS.rglob("*.http")} == {
        file.with_suffix("") for file in CORPUS.rglob("*.json")
    }


def test_no_checkout_touches_the_line_ends():
    """Git must not turn CRLF into LF, or the corpus would test something else."""
    assert "*.http -text" in (CORPUS / ".gitattributes").read_text().splitlines()


@pytest.mark.parametrize("case", VALID)
def test_a_valid_message_is_read_whole(case: Case):
    message, expected = case
    head = head_for(expected)
    assert head.feed(message) == expected["head_size"]
    assert_read(head, expected, message[: expected["head_size"]])
    assert body_of(expected, message[expected["head_size"] :]) == (wire(expected["body"]), b"")


@pytest.mark.parametrize("case", VALID)
def test_a_valid_head_is_read_byte_by_byte(case: Case):
    """No prefix is refused and none is taken for the whole."""
    message, expected = case
    head = head_for(expected)
    for size in range(expected["head_size"]):
        assert head.feed(message[:size]) == 0
    assert head.feed(message[: expected["head_size"]]) == expected["head_size"]
    assert_read(head, expected, message[: expected["head_size"]])


@pytest.mark.parametrize("case", [case for case in VALID if case.values[0][1]["framing"] != "CLOSE"])
def test_what_follows_a_valid_message_is_left(case: Case):
    message, expected = case
    head = head_for(expected)
    assert head.feed(message + TAIL) == expected["head_size"]
    assert_read(head, expected, message[: expected["head_size"]])
    assert body_of(expected, (message + TAIL)[expected["head_size"] :]) == (wire(expected["body"]), TAIL)


def assert_refused(case: Case, pieces: list[bytes]) -> None:
    """The rule that is broken is named, at the last piece at the latest."""
    head = head_for(case[1])
    with pytest.raises(Malformed) as caught:
        for piece in pieces:
            assert head.feed(piece) == 0
    assert caught.value.rule == case[1]["rule"]
    assert caught.value.status == case[1].get("status", caught.value.status)


@pytest.mark.parametrize("case", INVALID)
def test_an_invalid_message_is_refused_whole(case: Case):
    assert_refused(case, [case[0]])


@pytest.mark.parametrize("case", INVALID)
def test_an_invalid_message_is_refused_byte_by_byte(case: Case):
    assert_refused(case, [case[0][:size] for size in range(len(case[0]) + 1)])


@pytest.mark.parametrize("case", INVALID)
def test_an_invalid_message_is_refused_whatever_follows(case: Case):
    assert_refused(case, [case[0] + TAIL])
