"""A raw client, and what an exchange looks like from both ends as a table of aspects that can be compared.

Law: only what a proxy may choose freely is left out, and each omission has its reason here. All else counts.
"""

from __future__ import annotations

import enum
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.support.differential_upstream import Ended, Fields, Recorded, Wire, reset, values

#: A request that both proxies answer by themselves: whether the connection serves another one.
PROBE = b"GET /still-open HTTP/1.1\r\nHost: example.org\r\n\r\n"
PROBE_STATUS = 299

Aspects = dict[str, object]


class Move(enum.Enum):
    """What a client does besides sending bytes."""

    HALF_CLOSE = "end sending"
    RESET = "cut the connection with a RST"


class Await(bytes):
    """A step: wait until these bytes have come."""


ClientStep = bytes | Move | Await


class Manner(NamedTuple):
    """How a client goes about it."""

    methods: Sequence[str]  # of the requests, one for each answer
    probe: bool  # whether another request tells, in the end, if the connection is still open
    patience: float  # seconds that each read may take
    when_played: Callable[[], object]  # called when all steps are done


@dataclass(slots=True)
class Answer:
    """One final response, and the interim ones before it."""

    interim: list[bytes]
    status: bytes  # code and phrase
    fields: Fields
    framing: str
    body: bytearray = field(default_factory=bytearray)
    trailers: Fields = field(default_factory=list)
    ending: str = "whole"  # whole; cut: shorter than framed; else how the connection that framed it ended


@dataclass(slots=True)
class Conversation:
    """What a client got on one connection."""

    answers: list[Answer]
    is_open: bool | None  # None where it was not asked


def converse(port: int, steps: Sequence[ClientStep], manner: Manner) -> Conversation:
    """Play `steps` on a new connection and read one answer for each method of the manner."""
    with socket.create_connection(("127.0.0.1", port), timeout=manner.patience) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire = Wire(sock)
        can_read = _play(wire, steps)
        manner.when_played()
        if not can_read:
            return Conversation([], None)
        answers: list[Answer] = []
        for method in manner.methods:
            answer = _answer(wire, method)
            if answer is None:
                break
            answers.append(answer)
        is_over = len(answers) < len(manner.methods) or (answers and answers[-1].ending != "whole")
        return Conversation(answers, not is_over and _is_open(wire, answers) if manner.probe else None)


def _play(wire: Wire, steps: Sequence[ClientStep]) -> bool:
    """Whether there is an answer to read."""
    for step in steps:
        try:
            if step is Move.RESET:
                reset(wire.sock)
                return False
            if step is Move.HALF_CLOSE:
                wire.sock.shutdown(socket.SHUT_WR)
            elif isinstance(step, Await):
                while wire.pending.find(step) < 0:
                    wire.pending += _more(wire)
            else:
                assert isinstance(step, bytes)
                wire.sock.sendall(step)
        except (ConnectionError, Ended):
            break  # it answered without listening to the end; the answer is what counts
    return True


def _more(wire: Wire) -> bytes:
    held, wire.pending = wire.pending, b""
    try:
        return wire.some()
    finally:
        wire.pending = held


def _answer(wire: Wire, method: str) -> Answer | None:
    """The next final response; None when the connection ends before its head is whole."""
    interim: list[bytes] = []
    while True:
        try:
            version, _, status = wire.line().partition(b" ")
            fields = wire.fields() if version == b"HTTP/1.1" else []
        except Ended:
            return None
        if version != b"HTTP/1.1":
            return Answer(interim, b"0 no status line", [], "none", ending="nonsense")
        if not status.startswith(b"1") or status.startswith(b"101"):
            break
        interim.append(status[:3])
    answer = Answer(interim, status, fields, _framing(method, status, fields))
    if answer.framing in ("length", "chunked"):
        try:
            answer.trailers = wire.body(fields, answer.body)
        except Ended:
            answer.ending = "cut"
    elif answer.framing == "close":
        try:
            while True:
                answer.body += wire.some()
        except Ended as ended:
            answer.ending = ended.how
    return answer


def _framing(method: str, status: bytes, fields: Fields) -> str:
    if method == "HEAD" or status[:3] in (b"204", b"304"):
        return "none"
    if values(fields, b"transfer-encoding"):
        return "chunked"
    if values(fields, b"content-length"):
        return "length"
    return "close"


def _is_open(wire: Wire, answers: Sequence[Answer]) -> bool:
    says_close = bool(answers) and b"close" in values(answers[-1].fields, b"connection")
    try:
        if not says_close:
            wire.sock.sendall(PROBE)
        answer = _answer(wire, "GET")
    except ConnectionError:
        return False
    assert answer is None or not says_close, f"it says close and goes on with {answer}"
    assert answer is None or answer.status[:3] == b"%d" % PROBE_STATUS, f"not the probe's answer: {answer}"
    return answer is not None


# Aspects ---------------------------------------------------------------------------------------------------

#: What the proxy says about the connection it has itself (RFC 9110 section 7.6.1), and how it frames.
_HOP = (b"connection", b"keep-alive", b"transfer-encoding", b"content-length", b"upgrade")
#: Fields that both proxies set: their place among the others is free.
_FORWARDING = (
    b"host",
    b"x-real-ip",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-proto",
)
#: Fields that nginx keeps apart from the others and sends first; their order means nothing.
_FIRST = (b"date", b"server", b"content-type", b"last-modified")

#: A Date that an upstream sends; any other is the proxy's own clock.
DATE = b"Tue, 15 Nov 1994 08:12:31 GMT"


def upstream_aspects(records: Sequence[Recorded], names: Mapping[bytes, bytes]) -> Aspects:
    """What an upstream received: of whole requests all, of others nothing.

    `names` are values of forwarding fields that differ between the proxies, and what stands for them.
    """
    whole = [record for record in records if record.is_complete]
    aspects: Aspects = {"upstream.requests": len(whole)}
    for number, record in enumerate(whole, 1):
        prefix = "upstream." if number == 1 else f"upstream{number}."
        aspects |= {prefix + name: value for name, value in _request_aspects(record, names)}
    return aspects


def _request_aspects(record: Recorded, names: Mapping[bytes, bytes]) -> Iterator[tuple[str, object]]:
    fields = record.fields
    yield "line", record.line
    yield "fields", [pair for pair in fields if pair[0].lower() not in _HOP + _FORWARDING]
    yield "forwarding", [(name, names.get(value, value)) for name, value in _only(fields, *_FORWARDING)]
    # nginx counts a chunked body when it has all of it in time; that there is one framing is what matters
    yield "framings", len(_only(fields, b"content-length", b"transfer-encoding"))
    upgrades = any(b"upgrade" in value.lower() for value in values(fields, b"connection"))
    yield "upgrade", (upgrades, values(fields, b"upgrade"))
    yield "body", bytes(record.body)
    yield "trailers", record.trailers
    yield "tunnel", bytes(record.tunnel)


def client_aspects(conversation: Conversation, *, own: bool) -> Aspects:
    """What a client got. Of an answer of the proxy itself (`own`) its wording does not count."""
    aspects: Aspects = {"client.answers": len(conversation.answers), "client.open": conversation.is_open}
    for number, answer in enumerate(conversation.answers, 1):
        prefix = "client." if number == 1 else f"client{number}."
        found = _own_aspects(answer) if own else _answer_aspects(answer)
        aspects |= {prefix + name: value for name, value in found}
    return aspects


def _own_aspects(answer: Answer) -> Iterator[tuple[str, object]]:
    yield "status", int(answer.status.partition(b" ")[0])
    yield "location", values(answer.fields, b"location")
    yield "ending", answer.ending


def _answer_aspects(answer: Answer) -> Iterator[tuple[str, object]]:
    fields = answer.fields
    yield "interim", answer.interim
    yield "status", answer.status
    yield "fields", [pair for pair in fields if pair[0].lower() not in _HOP + _FIRST]
    yield "first", sorted(pair for pair in map(_impersonal, _only(fields, *_FIRST)) if pair[1])
    yield "framing", (answer.framing, values(fields, b"content-length"))
    yield "upgrade", values(fields, b"upgrade")
    # how much of a body came before it was cut is a matter of buffers
    yield "body", bytes(answer.body) if answer.ending in ("whole", "closed") else None
    yield "trailers", answer.trailers
    yield "ending", answer.ending


def _impersonal(pair: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """A field, its value empty when it is the proxy's own: its clock or its name.

    nginx adds no Date when told to pass the upstream's on, and the sidecar does not tell its name.
    """
    name, value = pair
    is_own = (name == b"date" and value != DATE) or (name == b"server" and value.startswith(b"nginx"))
    return name, b"" if is_own else value


def _only(fields: Fields, *names: bytes) -> Fields:
    return sorted((name.lower(), value) for name, value in fields if name.lower() in names)
