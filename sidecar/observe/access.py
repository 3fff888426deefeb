# cython: language_level=3, annotation_typing=False
"""The access log: one line for each exchange, or TCP connection, as JSON or for a person.

This runs for every request: nothing is built that is not written, and what repeats is kept. Whatever a client
sends, a line is one line of valid UTF-8, and in JSON a strict reader takes it.
"""

from __future__ import annotations

from typing import Any, Final, Literal, Protocol

from ..message import Attempt, Request
from ..runtime import Clock
from .line import Line
from .text import fit, quoted, shown, time_text

MAX_PATH: Final = 2048  # characters of the path with its query
MAX_TEXT: Final = 255  # characters of every other text
_MAX_KEPT: Final = 2048  # texts of one kind whose JSON is kept

_VERIFIED: Final = "success"  # net.tls_info's word for a certificate that is believed
#: 0 … 999 as three digits: to format a float takes twice as long.
_THOUSANDTHS: Final = tuple(f"{number:03d}" for number in range(1000))


class Output(Protocol):
    """Where lines go; a Writer."""

    def write(self, line: bytes) -> None:
        """Take one complete line."""


class _Texts:
    """text → its JSON behind a prefix, made when first asked for. With a prefix, no text gives nothing."""

    __slots__ = ("_prefix", "known")

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self.known: dict[str | bytes, str] = {}

    def of(self, text: str | bytes) -> str:
        """That of this text."""
        json = self.known.get(text)
        return json if json is not None else self._made(text)

    def _made(self, text: str | bytes) -> str:
        if len(self.known) >= _MAX_KEPT:  # clients choose some of the texts
            self.known.clear()
        json = self._prefix + quoted(fit(text, MAX_TEXT)) if text or not self._prefix else ""
        self.known[text] = json
        return json


class AccessLog:
    """The access lines of one output."""

    __slots__ = (
        "_console",
        "_date",
        "_line",
        "_millis",
        "_reasons",
        "_routes",
        "_second",
        "_stamp",
        "_texts",
        "_versions",
        "_write",
    )

    def __init__(self, output: Output, fmt: Literal["json", "console"], clock: Clock) -> None:
        self._write = output.write
        self._console = fmt == "console"
        self._date = clock.time
        self._line = Line()
        self._millis = -1  # the moment of the last line, since 1970
        self._stamp = ""  # its text
        self._second = ""  # the text of its second, with the point
        self._texts = _Texts()
        self._routes = _Texts(',"route":')
        self._reasons = _Texts(',"reason":')
        self._versions = _Texts(',"tls":')

    def record(
        self, request: Request, status: int, reason: str, received: int, sent: int, duration: float
    ) -> None:
        """Log one exchange that is over: bytes from and to the client, seconds in all."""
        millis = int(self._date() * 1000.0)
        if millis != self._millis:
            self._renew(millis)
        if self._console:
            self._write(_console_line(self._stamp, request, status, reason, (received, sent, duration)))
            return
        line = self._line
        self._asked(line, request)
        line.text(',"status":')
        line.number(status)
        if request.grpc_status >= 0:
            line.text(',"grpc_status":')
            line.number(request.grpc_status)
        line.text(self._reasons.of(reason))
        line.text(',"received":')
        line.number(received)
        line.text(',"sent":')
        line.number(sent)
        line.text(',"duration_ms":')
        line.millis(duration)
        line.text(',"attempts":[')
        for place, attempt in enumerate(request.attempts):
            if place:
                line.text(",")
            self._attempt(line, attempt)
        line.text("]}\n")
        self._write(line.take())

    def _asked(self, line: Line, request: Request) -> None:
        """From the moment to the upstream: what was asked, by whom, of whom."""
        head = request.head
        texts = self._texts
        line.text('{"time":"')
        line.text(self._stamp)
        line.text('","client":')
        line.text(texts.of(request.client))
        line.text(',"method":')
        line.text(texts.of(head.method))
        line.text(',"host":')
        line.text(texts.of(request.host))
        line.text(',"path":')
        origin = head.origin
        if not line.plain(origin, MAX_PATH):
            line.text(quoted(fit(origin, MAX_PATH)))
        if request.route is not None:
            line.text(self._routes.of(request.route.name))
        line.text(',"listener":')
        line.text(texts.of(request.listener))
        channel = request.client_channel
        if channel is not None and channel.framed:
            line.text(',"protocol":"h2"')
        if request.tls is not None:
            self._secured(line, request.tls)
        attempts = request.attempts
        if attempts:
            last = attempts[-1]
            line.text(',"upstream":')
            line.text(texts.of(last.server))

    def _secured(self, line: Line, tls: Any) -> None:
        """The version of TLS; and who the client says it is, with why that is not believed."""
        line.text(self._versions.of(tls.version))
        if tls.has_certificate:
            line.text(',"client_cert":')
            line.text(self._texts.of(tls.subject_seen))
            if tls.verified != _VERIFIED:
                line.text(',"client_verify":')
                line.text(self._texts.of(tls.verified))

    def _attempt(self, line: Line, attempt: Attempt) -> None:
        line.text('{"server":')
        line.text(self._texts.of(attempt.server))
        line.text(',"status":')
        line.number(attempt.status)
        line.text(',"reused":true' if attempt.reused else ',"reused":false')
        if attempt.connect >= 0.0:
            line.text(',"connect_ms":')
            line.millis(attempt.connect)
        if attempt.first_byte >= 0.0:
            line.text(',"first_byte_ms":')
            line.millis(attempt.first_byte)
        if attempt.total >= 0.0:
            line.text(',"total_ms":')
            line.millis(attempt.total)
        line.text(self._reasons.of(attempt.reason))
        line.text("}")

    def connection(self, request: Request, reason: str, received: int, sent: int, duration: float) -> None:
        """Log one TCP connection that is over: bytes from and to the client, seconds in all.

        Of `request` count the client, the name that it asked for (host), listener, route and attempts.
        """
        self._renew(int(self._date() * 1000.0))
        if self._console:
            self._write(_console_connection(self._stamp, request, reason, (received, sent, duration)))
            return
        texts, attempts = self._texts, request.attempts
        words = [f'{{"time":"{self._stamp}","client":{texts.of(request.client)},"protocol":"tcp"']
        if request.host:
            words.append(f',"sni":{texts.of(request.host)}')
        if request.route is not None:
            words.append(self._routes.of(request.route.name))
        words.append(f',"listener":{texts.of(request.listener)}')
        if request.tls is not None:
            self._secured(self._line, request.tls)
            words.append(self._line.take().decode())
        if attempts:
            words.append(f',"upstream":{texts.of(attempts[-1].server)}')
        words.append(f'{self._reasons.of(reason)},"received":{received},"sent":{sent}')
        words.append(f',"duration_ms":{_millis(duration)},"attempts":[')
        words.append(",".join(map(self._dialed, attempts)))
        self._write(("".join(words) + "]}\n").encode())

    def _dialed(self, attempt: Attempt) -> str:
        """An attempt that ends with a connection: it has no status and no first byte."""
        text = f'{{"server":{self._texts.of(attempt.server)}'
        if attempt.connect >= 0.0:
            text += f',"connect_ms":{_millis(attempt.connect)}'
        if attempt.total >= 0.0:
            text += f',"total_ms":{_millis(attempt.total)}'
        return f"{text}{self._reasons.of(attempt.reason)}}}"

    def refused(self, client: str, listener: str, status: int, reason: str, sent: int) -> None:
        """Log what could not be read as a request: no method, no host, no path."""
        self._renew(int(self._date() * 1000.0))
        if self._console:
            line = (
                f"{self._stamp} {status} - - - client={_word(client)} sent={sent} listener={_word(listener)}"
            )
            self._write(f"{line} reason={_word(reason)}\n".encode())
            return
        texts = self._texts
        self._write(
            f'{{"time":"{self._stamp}","client":{texts.of(client)},"listener":{texts.of(listener)},"status":{status}'
            f'{self._reasons.of(reason)},"received":0,"sent":{sent},"attempts":[]}}\n'.encode()
        )

    def _renew(self, millis: int) -> None:
        """The text of another moment; that of its second is kept."""
        if millis // 1000 != self._millis // 1000:
            self._second = time_text(millis // 1000)[:20]
        self._stamp = f"{self._second}{_THOUSANDTHS[millis % 1000]}Z"
        self._millis = millis


def _millis(seconds: float) -> str:
    """Milliseconds with three decimals, cut off."""
    micros = int(seconds * 1e6)
    return f"{micros // 1000}.{_THOUSANDTHS[micros % 1000]}"


def _console_line(
    stamp: str, request: Request, status: int, reason: str, moved: tuple[int, int, float]
) -> bytes:
    """`time status method host path duration key=value …`; `moved` is (received, sent, seconds)."""
    received, sent, duration = moved
    words = [
        f"{stamp} {status}",
        _word(request.head.method),
        _word(request.host),
        shown(fit(request.head.origin, MAX_PATH)),
        f"{_millis(duration)}ms client={_word(request.client)} received={received} sent={sent}",
    ]
    if request.route is not None:
        words.append(f"route={_word(request.route.name)}")
    words.append(f"listener={_word(request.listener)}")
    if request.client_channel is not None and request.client_channel.framed:
        words.append("protocol=h2")
    if request.tls is not None:
        words += _console_tls(request.tls)
    if request.grpc_status >= 0:
        words.append(f"grpc_status={request.grpc_status}")
    if reason:
        words.append(f"reason={_word(reason)}")
    words += [f"upstream={_console_attempt(attempt)}" for attempt in request.attempts]
    return (" ".join(words) + "\n").encode()


def _console_tls(tls: Any) -> list[str]:
    words = [f"tls={_word(tls.version)}"]
    if tls.has_certificate:
        words.append(f"client_cert={_word(tls.subject_seen)}")
        if tls.verified != _VERIFIED:
            words.append(f"client_verify={_word(tls.verified)}")
    return words


def _console_connection(stamp: str, request: Request, reason: str, moved: tuple[int, int, float]) -> bytes:
    """`time tcp sni duration key=value …`; `moved` is (received, sent, seconds)."""
    received, sent, duration = moved
    words = [
        f"{stamp} tcp {_word(request.host) if request.host else '-'}",
        f"{_millis(duration)}ms client={_word(request.client)} received={received} sent={sent}",
    ]
    if request.route is not None:
        words.append(f"route={_word(request.route.name)}")
    words.append(f"listener={_word(request.listener)}")
    if request.tls is not None:
        words += _console_tls(request.tls)
    if reason:
        words.append(f"reason={_word(reason)}")
    words += [f"upstream={_console_attempt(attempt, 'tcp')}" for attempt in request.attempts]
    return (" ".join(words) + "\n").encode()


def _console_attempt(attempt: Attempt, status: str = "") -> str:
    """`server(status,reused,connect=…ms,…)`."""
    text = f"{_word(attempt.server)}({status or attempt.status}"
    if attempt.reused:
        text += ",reused"
    if attempt.connect >= 0.0:
        text += f",connect={_millis(attempt.connect)}ms"
    if attempt.first_byte >= 0.0:
        text += f",first_byte={_millis(attempt.first_byte)}ms"
    if attempt.total >= 0.0:
        text += f",total={_millis(attempt.total)}ms"
    if attempt.reason:
        text += f",{_word(attempt.reason)}"
    return text + ")"


def _word(text: str | bytes) -> str:
    return shown(fit(text, MAX_TEXT))
