"""One question to the name servers, over UDP, and over TCP when the answer is too long for a datagram.

dnspython's own exchanges wait in `select`, which stops everybody where nothing is patched; so it reads and
writes messages only, and what waits here are gevent's sockets and our channels. A socket is used once: each
question has a port of its own, and the kernel drops what comes from elsewhere and tells when nobody listens.

Law: a question ends within LIFETIME seconds, whatever the servers do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

import gevent
from gevent import socket
from gevent.lock import Semaphore

from ..errors import Broken, Failure, SidecarError
from ..runtime import Clock
from .dial import Target, dial
from .name_files import Setup

if TYPE_CHECKING:
    from ..wire.dns_message import Question, Record, RecordType, Reply

T = TypeVar("T")

#: Makes a question, extended or plain.
Ask = Callable[[bool], "Question"]

#: Seconds for a question, all tries together.
LIFETIME: Final = 5.0
#: Questions at one time; more wait for their turn. Answers that come together are read in a row, half a
#: millisecond each, and nobody is served meanwhile.
AT_ONCE: Final = 16

_SHORTEST_TRY: Final = 0.5  # seconds
_MOST_STRAY: Final = 16  # datagrams that answer something else, until a try is given up
_LARGEST_DATAGRAM: Final = 8192  # more than any server sends who was told how much is welcome
_LARGE: Final = 512  # bytes that may take 10 ms to read when they mean it: larger ones are read in a thread
_MOST_ALIASES: Final = 8  # that lead from one answer to another question
_FINAL: Final = ("NOERROR", "NXDOMAIN")
#: What a server says that does not understand the extension of the question.
_PLAIN_WANTED: Final = ("FORMERR", "NOTIMP")


class Unknown(SidecarError):
    """There is no such name, or there cannot be."""


class Unanswered(SidecarError):
    """No server gave an answer; the text says why."""


class _Fruitless(Exception):
    """A try gave nothing. `is_silence`: another one may."""

    def __init__(self, text: str, is_silence: bool = False) -> None:
        super().__init__(text)
        self.is_silence = is_silence


class Answer:
    """The records (none: the name has none of this kind) and the seconds for which they hold."""

    __slots__ = ("records", "ttl")

    def __init__(self, records: tuple[Record, ...], ttl: int) -> None:
        self.records = records
        self.ttl = ttl


class Resolver:
    """Asks. Shared by all names of the process."""

    def __init__(self, clock: Clock) -> None:
        self._now = clock.monotonic
        self._turn = Semaphore(AT_ONCE)
        self._make: type[Question] | None = None
        self._importing = Semaphore(1)
        self._first = 0  # of the servers, when they take turns

    def ask(self, setup: Setup, name: str, record_type: RecordType) -> Answer:
        """What an absolute name has; aliases are followed. Raises Unknown or Unanswered."""
        with self._turn:
            if self._make is None:
                self._import()
            until = self._now() + LIFETIME
            ttl: int | None = None
            for _ in range(_MOST_ALIASES):
                reply = self._ask_servers(setup, self._asking(name, record_type), until)
                if reply.code == "NXDOMAIN":
                    raise Unknown("no such name (NXDOMAIN)")
                if reply.records or reply.alias:
                    ttl = reply.ttl if ttl is None else min(ttl, reply.ttl)
                if not reply.alias:
                    return Answer(reply.records, ttl or 0)
                name = reply.alias
        raise Unanswered("too many aliases (CNAME)")

    def _import(self) -> None:
        """Import what reads messages: 60 ms and two megabytes that who has no names does not pay.

        One thread does it: several that import the same at one time may wait for each other for ever.
        """
        with self._importing:
            if self._make is None:
                self._make = _in_thread(_question_class)

    def _asking(self, name: str, record_type: RecordType) -> Ask:
        """What makes the question: a new one, with a number of its own, for each time that it is asked."""

        def ask(extended: bool) -> Question:
            assert self._make is not None
            try:
                return self._make(name, record_type, extended)
            except ValueError as error:
                raise Unknown(f"no name that can be asked for ({error})") from error

        return ask

    def _ask_servers(self, setup: Setup, ask: Ask, until: float) -> Reply:
        servers = list(setup.servers)
        if setup.rotate:
            self._first = (self._first + 1) % len(servers)
            servers = servers[self._first :] + servers[: self._first]
        patience = min(setup.timeout, max(_SHORTEST_TRY, LIFETIME / (len(servers) * setup.attempts)))
        problems: dict[str, None] = {}
        for attempt in range(setup.attempts):
            # What swallows extended questions is silent: the next round asks plainly.
            forms = (True, False) if attempt == 0 else (False,)
            for server in tuple(servers):
                left = until - self._now()
                if left <= 0:
                    break
                try:
                    tries = [ask(extended) for extended in forms]
                    return self._ask_server(server, tries, min(patience, left), setup.use_tcp)
                except _Fruitless as error:
                    problems[f"{_text(server)}: {error}"] = None
                    if not error.is_silence:
                        # It has answered, and would say the same again.
                        servers.remove(server)
        raise Unanswered("; ".join(problems) or "no time left")

    def _ask_server(self, server: Target, tries: list[Question], patience: float, use_tcp: bool) -> Reply:
        """A reply that says what there is; for a server that does not understand a try there is the next.

        Raises _Fruitless.
        """
        until = self._now() + patience
        code = ""
        for question in tries:
            reply = self._exchange(server, question, until, use_tcp)
            code = reply.code
            if code in _FINAL:
                return reply
            if code not in _PLAIN_WANTED:
                break
        raise _Fruitless(code)

    def _exchange(self, server: Target, question: Question, until: float, use_tcp: bool) -> Reply:
        try:
            reply = None if use_tcp else self._over_udp(server, question, until)
            return self._over_tcp(server, question, until) if reply is None or reply.truncated else reply
        except TimeoutError:
            raise _Fruitless("no answer", is_silence=True) from None
        except OSError as error:
            raise _Fruitless(error.strerror or str(error), is_silence=True) from error
        except (Failure, Broken) as error:
            reason = error.what if isinstance(error, Broken) else error.reason
            raise _Fruitless(f"over TCP: {reason}", is_silence=True) from error

    def _over_udp(self, server: Target, question: Question, until: float) -> Reply:
        """Raises OSError, TimeoutError among them."""
        family, address = server
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect(address)
            sock.send(question.wire)
            for _ in range(_MOST_STRAY):
                sock.settimeout(self._left(until))
                reply = _read(question, sock.recv(_LARGEST_DATAGRAM))
                if reply is not None:
                    return reply
        raise _Fruitless("answers that cannot be read")

    def _over_tcp(self, server: Target, question: Question, until: float) -> Reply:
        """Raises OSError, Failure or Broken."""
        channel = dial([server], self._left(until))
        try:
            channel.send(len(question.wire).to_bytes(2, "big") + question.wire, self._left(until))
            data = bytearray()
            size = 2
            while len(data) < size:
                piece = channel.read(size - len(data), self._left(until))
                if not piece:
                    raise _Fruitless("over TCP: the connection was closed", is_silence=True)
                data += piece
                if len(data) == size == 2:
                    size += int.from_bytes(data, "big")
        finally:
            channel.close()
        reply = _read(question, bytes(data[2:]))
        if reply is None or reply.truncated:
            raise _Fruitless("over TCP: an answer that cannot be read")
        return reply

    def _left(self, until: float) -> float:
        """Seconds. Raises TimeoutError when there are none."""
        left = until - self._now()
        if left <= 0:
            raise TimeoutError
        return left


def _question_class() -> type[Question]:
    from ..wire.dns_message import Question

    return Question


def _in_thread(function: Callable[..., T], *args: object) -> T:
    result: T = gevent.get_hub().threadpool.apply(function, args)
    return result


def _read(question: Question, wire: bytes) -> Reply | None:
    return question.read(wire) if len(wire) < _LARGE else _in_thread(question.read, wire)


def _text(server: Target) -> str:
    host, port = server[1][:2]
    return host if port == 53 else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
