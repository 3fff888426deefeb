"""DNS messages: a question to bytes, and bytes to what they answer. dnspython reads and writes them.

Law: whatever a server sends is a `Reply` within bounds, or None. Nothing of it is believed but the records
that the question is about: what is behind the answer is not read, an answer with other records is refused.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any, Final, Literal, NamedTuple, cast

import dns.exception
import dns.message
import dns.name
import dns.rcode

# dnspython imports these by a computed name when it meets the first. Named here they are packed, and no disk
# is read in the middle of an answer.
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.DNAME
import dns.rdtypes.ANY.RRSIG
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.rdtypes.IN.SRV

RecordType = Literal["A", "AAAA", "SRV"]

_PAYLOAD: Final = 1232  # bytes of a datagram that no network cuts to pieces (DNS flag day 2020)
_HEADER: Final = 12
_KIND: Final = 0xF8  # of the third byte: is it a response, and to which operation
_RESPONSE: Final = 0x80
_TRUNCATED: Final = 0x02
_CODE: Final = 0x0F  # of the fourth byte
_NO_ERROR: Final = 0
_UNREAD: Final = (1, 2, 4, 5)  # FORMERR, SERVFAIL, NOTIMP, REFUSED
_NONE, _ONE = b"\0\0", b"\0\1"
_COUNTS: Final = 8  # where the counts of the sections behind the answer are
_MOST_RECORDS: Final = 2048  # of an answer, aliases included
_CLASS_IN: Final = 1
#: What a server may put into the answer: 1 A, 28 AAAA, 33 SRV, 5 CNAME, 39 DNAME, 46 RRSIG. dnspython looks
#: for a module for every other type, and remembers each for ever: strangers must not get that far.
_EXPECTED: Final = frozenset({1, 28, 33, 5, 39, 46})
_HOST: Final = re.compile(r"(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}")


class Record(NamedTuple):
    """An address, or the target of a service; what an address does not have is 0."""

    value: str  # numeric address, or name without the last dot in lower case
    priority: int = 0
    weight: int = 0
    port: int = 0


class Reply(NamedTuple):
    """What a server says to a question."""

    code: str  # NOERROR, NXDOMAIN, SERVFAIL, …
    truncated: bool  # there is more, over TCP; the rest of this is empty then
    records: tuple[Record, ...] = ()
    ttl: int = 0  # seconds, of the records and the aliases on the way to them
    alias: str = ""  # where the name leads when the server did not say what is there


class Question:
    """A question with its number; `wire` is what is sent."""

    def __init__(self, name: str, record_type: RecordType, extended: bool = True) -> None:
        """`name` is absolute, its last dot may be missing. Raises ValueError for one that DNS cannot hold."""
        try:
            owner = dns.name.from_text(name, dns.name.root)
            query = dns.message.make_query(
                owner, record_type, use_edns=0 if extended else False, payload=_PAYLOAD
            )
        except dns.exception.DNSException as error:
            raise ValueError(f"{name}: {error}") from error
        self.record_type = record_type
        self.wire: bytes = query.to_wire()
        self._length = _behind_name(self.wire, _HEADER) + 4 - _HEADER

    def read(self, wire: bytes) -> Reply | None:
        """What these bytes answer. None: nothing, they belong to another question or are broken."""
        if len(wire) < _HEADER or wire[:2] != self.wire[:2] or wire[2] & _KIND != _RESPONSE:
            return None
        code = wire[3] & _CODE
        question = self.wire[_HEADER : _HEADER + self._length]
        is_ours = wire[4:6] == _ONE and wire[_HEADER : _HEADER + self._length].lower() == question.lower()
        # Who cannot read a question, or will not, need not repeat it.
        if not is_ours and (code not in _UNREAD or wire[4:6] != _NONE):
            return None
        if wire[2] & _TRUNCATED or code != _NO_ERROR:
            return Reply(dns.rcode.to_text(dns.rcode.Rcode(code)), bool(wire[2] & _TRUNCATED))
        try:
            return self._read_answer(wire)
        except Exception:  # noqa: BLE001 - a parser of hostile bytes raises whatever it likes
            return None

    def _read_answer(self, wire: bytes) -> Reply:
        self._refuse_strangers(wire)
        # Without their counts the sections behind the answer are trailing bytes.
        wire = wire[:_COUNTS] + bytes(_HEADER - _COUNTS) + wire[_HEADER:]
        message = dns.message.from_wire(wire, ignore_trailing=True)
        chain = cast(dns.message.QueryMessage, message).resolve_chaining()
        if chain.answer is None:
            alias = _name(chain.canonical_name) if chain.cnames else ""
            return Reply("NOERROR", False, (), min((one.ttl for one in chain.cnames), default=0), alias)
        found = [_RECORDS[self.record_type](data) for data in chain.answer]
        return Reply("NOERROR", False, tuple(one for one in found if one is not None), chain.minimum_ttl)

    def _refuse_strangers(self, wire: bytes) -> None:
        """Raises ValueError, or IndexError, for an answer with records of another kind, or too many."""
        answers = int.from_bytes(wire[6:8], "big")
        if answers > _MOST_RECORDS:
            raise ValueError("too many records")
        at = _HEADER + self._length
        for _ in range(answers):
            at = _behind_name(wire, at)
            kind, group, length = (int.from_bytes(wire[at + one : at + one + 2], "big") for one in (0, 2, 8))
            if kind not in _EXPECTED or group != _CLASS_IN:
                raise ValueError("a record of another kind")
            at += 10 + length


def _behind_name(wire: bytes, at: int) -> int:
    while length := wire[at]:
        if length >= 0xC0:
            return at + 2
        at += length + 1
    return at + 1


def _address(data: Any) -> Record | None:
    """None for what nobody can connect to; 0.0.0.0 would even lead to this machine."""
    address = ip_address(data.address)
    if address.is_unspecified or address.is_multicast:
        return None
    return Record(str(address))


def _service(data: Any) -> Record | None:
    """None for a target that is no host. "." says that there is no such service (RFC 2782)."""
    target = _name(data.target)
    return Record(target, data.priority, data.weight, data.port) if target and data.port else None


_RECORDS: Final = {"A": _address, "AAAA": _address, "SRV": _service}


def _name(name: dns.name.Name) -> str:
    """In lower case, without the last dot; empty when it is no name of a host."""
    text = name.to_text(omit_final_dot=True).lower()
    return text if _HOST.fullmatch(text) else ""
