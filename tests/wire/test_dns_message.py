"""DNS messages: what is believed of an answer, and that nothing else is."""

from __future__ import annotations

import time

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.wire.dns_message import Question, Record, RecordType, Reply

#: name, TTL, type, values of a set of records
Rows = tuple[str, int, str, list[str]]


def response(question: Question, *rows: Rows, code: str = "NOERROR") -> dns.message.Message:
    message = dns.message.make_response(dns.message.from_wire(question.wire))
    message.set_rcode(dns.rcode.from_text(code))
    for name, ttl, kind, values in rows:
        message.answer.append(dns.rrset.from_text(name, ttl, "IN", kind, *values))
    return message


def asked(record_type: RecordType = "A", name: str = "app.example") -> Question:
    return Question(name, record_type)


def answer(question: Question, *rows: Rows) -> Reply | None:
    return question.read(response(question, *rows).to_wire())


def test_addresses_come_with_the_time_for_which_they_hold() -> None:
    four = answer(asked(), ("app.example.", 30, "A", ["10.0.0.1", "10.0.0.2"]))
    assert four is not None
    assert set(four.records) == {Record("10.0.0.1"), Record("10.0.0.2")}
    assert (four.code, four.truncated, four.ttl, four.alias) == ("NOERROR", False, 30, "")
    six = answer(asked("AAAA"), ("app.example.", 7, "AAAA", ["2001:db8::1"]))
    assert six == Reply("NOERROR", False, (Record("2001:db8::1"),), 7)


def test_a_target_of_a_service_has_its_numbers() -> None:
    rows = ("_http._tcp.example.", 9, "SRV", ["10 5 8080 A.Example.", "20 0 81 b.example."])
    found = answer(asked("SRV", "_http._tcp.example"), rows)
    assert found is not None
    assert set(found.records) == {Record("a.example", 10, 5, 8080), Record("b.example", 20, 0, 81)}


@pytest.mark.parametrize(
    "value", ["1 1 80 .", "1 1 0 a.example.", r"1 1 80 a\032b.example.", r"1 1 80 a\.b.c."]
)
def test_a_target_that_is_no_host_is_left_out(value: str) -> None:
    found = answer(asked("SRV", "_http._tcp.example"), ("_http._tcp.example.", 9, "SRV", [value]))
    assert found == Reply("NOERROR", False, (), 9)


@pytest.mark.parametrize(
    ("record_type", "value"), [("A", "0.0.0.0"), ("A", "224.0.0.1"), ("AAAA", "::"), ("AAAA", "ff02::1")]
)
def test_an_address_that_nobody_can_connect_to_is_left_out(record_type: RecordType, value: str) -> None:
    found = answer(asked(record_type), ("app.example.", 9, record_type, [value]))
    assert found is not None
    assert found.records == ()


def test_aliases_are_followed_and_their_time_counts() -> None:
    found = answer(
        asked(),
        ("app.example.", 5, "CNAME", ["www.example."]),
        ("www.example.", 50, "CNAME", ["host.example."]),
        ("host.example.", 60, "A", ["10.0.0.1"]),
    )
    assert found == Reply("NOERROR", False, (Record("10.0.0.1"),), 5)


def test_an_alias_that_leads_out_of_the_answer_is_told() -> None:
    found = answer(asked(), ("app.example.", 5, "CNAME", ["Host.Other."]))
    assert found == Reply("NOERROR", False, (), 5, "host.other")


def test_an_alias_that_leads_to_itself_is_no_answer() -> None:
    assert answer(asked(), ("app.example.", 5, "CNAME", ["app.example."])) is None


def test_a_name_without_such_records_is_an_empty_answer() -> None:
    assert answer(asked()) == Reply("NOERROR", False)
    assert answer(asked(), ("other.example.", 5, "A", ["10.0.0.1"])) == Reply("NOERROR", False)


@pytest.mark.parametrize("code", ["NXDOMAIN", "SERVFAIL", "REFUSED", "NOTIMP", "FORMERR"])
def test_what_is_wrong_has_its_name(code: str) -> None:
    question = asked()
    assert question.read(response(question, code=code).to_wire()) == Reply(code, False)


@pytest.mark.parametrize(
    ("code", "is_believed"), [("SERVFAIL", True), ("FORMERR", True), ("NXDOMAIN", False)]
)
def test_only_a_question_that_was_not_read_need_not_come_back(code: str, is_believed: bool) -> None:
    question = asked()
    wire = bytearray(response(question, code=code).to_wire()[:12])
    wire[4:12] = bytes(8)
    assert question.read(bytes(wire)) == (Reply(code, False) if is_believed else None)


def test_a_truncated_answer_says_so_and_nothing_else() -> None:
    question = asked()
    message = response(question, ("app.example.", 30, "A", ["10.0.0.1"]))
    message.flags |= dns.flags.TC
    assert question.read(message.to_wire()) == Reply("NOERROR", True)
    assert question.read(message.to_wire()[:-6]) == Reply("NOERROR", True)


def test_another_number_question_or_kind_of_message_is_nothing() -> None:
    question = asked()
    good = response(question, ("app.example.", 30, "A", ["10.0.0.1"])).to_wire()
    assert question.read(good)
    assert question.read(bytes([good[0] ^ 1]) + good[1:]) is None
    assert question.read(good[:2] + bytes([good[2] ^ 0x80]) + good[3:]) is None
    assert question.read(good[:2] + bytes([good[2] | 0x28]) + good[3:]) is None
    other = asked(name="bpp.example")
    wire = response(other, ("bpp.example.", 30, "A", ["10.0.0.1"])).to_wire()
    assert question.read(question.wire[:2] + wire[2:]) is None
    assert question.read(asked("AAAA").wire) is None
    assert question.read(b"") is None


def test_the_letters_of_the_question_may_change_their_case() -> None:
    question = asked()
    good = response(question, ("app.example.", 30, "A", ["10.0.0.1"])).to_wire()
    found = question.read(good.replace(b"example", b"eXaMpLe"))
    assert found is not None
    assert found.records


def test_what_is_behind_the_answer_is_not_read() -> None:
    question = asked()
    message = response(question, ("app.example.", 30, "A", ["10.0.0.1"]))
    message.additional.append(dns.rrset.from_text("app.example.", 30, "IN", "A", "10.6.6.6"))
    wire = message.to_wire()
    found = question.read(wire[:-3])
    assert found is not None
    assert found.records == (Record("10.0.0.1"),)


def test_an_answer_with_other_records_is_refused() -> None:
    """Each unknown type would cost a search on the disk and memory that is never given back."""
    row = ("app.example.", 30, "A", ["10.0.0.1"])
    assert answer(asked(), row, ("app.example.", 30, "TXT", ["hello"])) is None
    assert answer(asked(), row, ("app.example.", 30, "TYPE65400", [r"\# 1 00"])) is None
    question = asked()
    wire = response(question, row).to_wire()
    chaos = wire.replace(b"\xc0\x0c\0\1\0\1", b"\xc0\x0c\0\1\0\3")
    assert chaos != wire
    assert question.read(chaos) is None


def test_too_many_records_are_refused_at_once() -> None:
    question = asked()
    wire = response(question, ("app.example.", 30, "A", ["10.0.0.1"])).to_wire()
    assert question.read(wire[:6] + b"\xff\xff" + wire[8:]) is None


@pytest.mark.parametrize("name", ["a..b", "x" * 64, ".".join(["abcdefg"] * 40)])
def test_a_name_that_dns_cannot_hold_is_a_mistake(name: str) -> None:
    with pytest.raises(ValueError, match=name[:3]):
        Question(name, "A")


def test_a_question_is_extended_or_plain_and_asks_for_recursion() -> None:
    assert dns.message.from_wire(asked().wire).payload == 1232
    plain = dns.message.from_wire(Question("app.example.", "A", False).wire)
    assert plain.edns == -1
    assert plain.flags & dns.flags.RD
    assert str(plain.question[0].name) == "app.example."
    assert len({asked().wire[:2] for _ in range(50)}) > 40


@given(st.binary(max_size=300))
def test_bytes_of_a_stranger_are_a_reply_or_nothing(tail: bytes) -> None:
    question = asked()
    head = question.wire[:2] + b"\x81\x80" + tail
    framed = question.wire[:2] + b"\x81\x80\0\1\0\3\0\0\0\0" + question.wire[12:29] + tail
    for wire in (head, framed):
        found = question.read(wire)
        assert found is None or isinstance(found, Reply)


@given(st.data())
def test_a_broken_answer_is_a_reply_or_nothing(data: st.DataObject) -> None:
    question = asked()
    wire = bytearray(
        response(
            question,
            ("app.example.", 5, "CNAME", ["www.example."]),
            ("www.example.", 60, "A", ["10.0.0.1", "10.0.0.2"]),
        ).to_wire()
    )
    for _ in range(data.draw(st.integers(1, 4))):
        wire[data.draw(st.integers(2, len(wire) - 1))] = data.draw(st.integers(0, 255))
    found = question.read(bytes(wire[: data.draw(st.integers(0, len(wire)))]))
    assert found is None or isinstance(found, Reply)


def test_the_names_of_a_small_hostile_answer_are_read_quickly() -> None:
    """The largest that is read in the hub: owners with a hundred labels each, by a pointer of two bytes."""
    question = asked()
    start = len(question.wire) - 11  # behind the question, before the OPT record
    first = b"\x01a" * 100 + b"\xc0\x0c"
    row = b"\0\1\0\1\0\0\0\1\0\4\x0a\0\0\1"
    rest = (0xC000 | start).to_bytes(2, "big") + row
    body = first + row + rest * ((512 - start - len(first) - len(row)) // len(rest))
    count = 1 + (len(body) - len(first) - len(row)) // len(rest)
    wire = (
        question.wire[:2]
        + b"\x81\x80\0\1"
        + count.to_bytes(2, "big")
        + bytes(4)
        + question.wire[12:start]
        + body
    )
    begin = time.process_time()
    assert question.read(wire) == Reply("NOERROR", False)
    assert time.process_time() - begin < 0.2
