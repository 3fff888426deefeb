"""A name server on loopback whose answers a test changes: UDP and TCP on one port, in a thread of its own.

Law: what a test sets holds from the next question on; nothing is cached.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.rrset

_TTL: Final = 60


class Asked(NamedTuple):
    """A question that came."""

    name: str  # lower case, without the last dot
    type: str
    over: str  # udp or tcp
    extended: bool


#: What a server does with a question: makes the bytes of the datagrams, or of the TCP messages, to send.
Answering = Callable[[dns.message.Message, str], list[bytes]]


class DnsServer:
    """Answers from its records; a name without any does not exist. Use it with `with`."""

    def __init__(self) -> None:
        self._records: dict[str, dict[str, tuple[int, list[str]]]] = {}
        self._special: dict[tuple[str, str], Answering] = {}
        self._delay = 0.0
        self._held: list[Callable[[], None]] = []
        self._holding: tuple[str, ...] = ()
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self.asked: list[Asked] = []
        self._udp, self._tcp = _sockets()
        self.port: int = self._udp.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> DnsServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        # An empty datagram wakes it.
        self._udp.sendto(b"", self._udp.getsockname())
        self._thread.join()
        self._udp.close()
        self._tcp.close()

    @property
    def address(self) -> str:
        """As the option `resolver` takes it."""
        return f"127.0.0.1:{self.port}"

    # -- what it knows

    def set(self, name: str, kind: str, *values: str, ttl: int = _TTL) -> None:
        """Its records of a kind, as a zone file has them; none: it exists, without records of the kind."""
        with self._lock:
            self._records.setdefault(_plain(name), {})[kind] = (ttl, list(values))

    def remove(self, name: str) -> None:
        """The name does not exist any more."""
        with self._lock:
            self._records.pop(_plain(name), None)

    # -- how it behaves; for a name, or "" for all; for a kind, or "" for all

    def behave(self, answering: Answering | None, name: str = "", kind: str = "") -> None:
        """Do this with such questions; None: answer as always."""
        with self._lock:
            if answering is None:
                self._special.pop((_plain(name), kind), None)
            else:
                self._special[_plain(name), kind] = answering

    def be_silent(self, name: str = "", kind: str = "") -> None:
        """Answer nothing."""
        self.behave(lambda *_: [], name, kind)

    def refuse(self, code: str, name: str = "", kind: str = "") -> None:
        """Answer with SERVFAIL, REFUSED, NXDOMAIN, FORMERR …"""

        def answer(query: dns.message.Message, _over: str) -> list[bytes]:
            response = dns.message.make_response(query)
            response.set_rcode(dns.rcode.from_text(code))
            return [response.to_wire()]

        self.behave(answer, name, kind)

    def truncate(self, name: str = "", kind: str = "") -> None:
        """Say over UDP that there is more over TCP."""

        def answer(query: dns.message.Message, over: str) -> list[bytes]:
            return [_truncated(query) if over == "udp" else self.wire(query, over)]

        self.behave(answer, name, kind)

    def be_well(self) -> None:
        """Answer everything as always, at once."""
        with self._lock:
            self._special.clear()
            self._delay = 0.0
            self._holding = ()
            held, self._held = self._held, []
        for send in held:
            send()

    def be_slow(self, seconds: float) -> None:
        """Answer later; one after the other."""
        self._delay = seconds

    def hold(self, *kinds: str) -> None:
        """Keep the answers to questions of these kinds, or to all, back until `be_well`."""
        self._holding = kinds or ("A", "AAAA", "SRV")

    @property
    def held(self) -> int:
        """How many questions wait for their answers."""
        return len(self._held)

    # -- what it saw

    def count(self, name: str = "", kind: str = "", over: str = "") -> int:
        """How many such questions came."""
        return sum(
            (not name or one.name == _plain(name))
            and (not kind or one.type == kind)
            and (not over or one.over == over)
            for one in list(self.asked)
        )

    def response(self, query: dns.message.Message) -> dns.message.Message:
        """What it knows, with the aliases (CNAME) that it knows on the way."""
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        question = query.question[0]
        name, kind = question.name, dns.rdatatype.to_text(question.rdtype)
        with self._lock:
            for _ in range(20):
                records = self._records.get(_plain(str(name)))
                if records is None:
                    response.set_rcode(dns.rcode.NXDOMAIN)
                    break
                found = next((one for one in (kind, "CNAME") if records.get(one, (0, []))[1]), "")
                if found:
                    response.answer.append(_rrset(name, records[found][0], found, records[found][1]))
                if found != "CNAME":
                    break
                name = dns.name.from_text(records[found][1][0])
        return response

    def wire(self, query: dns.message.Message, over: str) -> bytes:
        """The bytes of that; over UDP, what does not fit is for TCP."""
        wire = self.response(query).to_wire(max_size=65535)
        return _truncated(query) if over == "udp" and len(wire) > max(512, query.payload) else wire

    # -- the thread

    def _serve(self) -> None:
        with selectors.DefaultSelector() as ready, contextlib.ExitStack() as stack:
            ready.register(self._udp, selectors.EVENT_READ)
            ready.register(self._tcp, selectors.EVENT_READ)
            while not self._stopping.is_set():
                for key, _ in ready.select():
                    with contextlib.suppress(OSError):
                        if key.fileobj is self._udp:
                            wire, peer = self._udp.recvfrom(4096)
                            if wire:
                                self._answer(wire, "udp", partial(self._send_udp, peer))
                        elif key.fileobj is self._tcp:
                            sock = stack.enter_context(self._tcp.accept()[0])
                            ready.register(sock, selectors.EVENT_READ)
                        else:
                            self._read_tcp(key.fileobj, ready)

    def _send_udp(self, peer: Any, data: bytes) -> None:
        self._udp.sendto(data, peer)

    def _read_tcp(self, sock: Any, ready: selectors.BaseSelector) -> None:
        """One message; a test's questions are short and come in one piece."""
        data = sock.recv(4096)
        if len(data) < 2:
            ready.unregister(sock)
            sock.close()
            return
        self._answer(data[2:], "tcp", lambda out: sock.sendall(len(out).to_bytes(2, "big") + out))

    def _answer(self, wire: bytes, over: str, send: Callable[[bytes], Any]) -> None:
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name, kind = _plain(str(question.name)), dns.rdatatype.to_text(question.rdtype)
        self.asked.append(Asked(name, kind, over, query.edns >= 0))
        if self._delay:
            self._stopping.wait(self._delay)

        def answer() -> None:
            with self._lock:
                keys = ((name, kind), (name, ""), ("", kind), ("", ""))
                special = next((self._special[key] for key in keys if key in self._special), None)
            outs = special(query, over) if special else [self.wire(query, over)]
            for out in outs:
                with contextlib.suppress(OSError):
                    send(out)

        with self._lock:
            if kind in self._holding:
                self._held.append(answer)
                return
        answer()


@contextlib.contextmanager
def name_server(**hosts: str) -> Iterator[DnsServer]:
    """A server that knows these names (underscores are dots), each with one IPv4 address."""
    with DnsServer() as server:
        for name, address in hosts.items():
            server.set(name.replace("_", "."), "A", address)
        yield server


def _plain(name: str) -> str:
    return name.rstrip(".").lower()


def _truncated(query: dns.message.Message) -> bytes:
    response = dns.message.make_response(query)
    response.flags |= dns.flags.TC
    return response.to_wire()


def _rrset(name: dns.name.Name, ttl: int, kind: str, values: list[str]) -> dns.rrset.RRset:
    rdatas = [
        dns.rdata.from_text("IN", kind, value, origin=dns.name.root, relativize=False) for value in values
    ]
    return dns.rrset.from_rdata_list(name, ttl, rdatas)


def _sockets() -> tuple[socket.socket, socket.socket]:
    """UDP and TCP on one free port."""
    while True:
        udp, tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
        udp.bind(("127.0.0.1", 0))
        try:
            tcp.bind(udp.getsockname())
            tcp.listen(64)
        except OSError:
            udp.close()
            tcp.close()
            continue
        return udp, tcp
