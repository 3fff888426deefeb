"""Where the process is asked about itself: /livez and /readyz, as Kubernetes' own components, and /metrics.

Law: it answers as long as the process runs, whatever else it has to do, and tells nothing that is secret.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from .config.addresses import Address
from .errors import Failure
from .message import Handler, Request, Response
from .net.settings import ListenerSettings
from .observe.metrics import CONTENT_TYPE
from .places import ADMIN, Place
from .readiness import Finding, worst
from .serving import Serving
from .wire.head import RequestHead, ResponseHead

#: Seconds. Probes are small and those who send them are near.
_PATIENCE: Final = 5.0
_IDLE: Final = 30.0

_METHODS: Final = (b"GET", b"HEAD")
_ALLOW: Final = (b"Allow", b", ".join(_METHODS))
_ALWAYS: Final = [(b"Cache-Control", b"no-store"), (b"X-Content-Type-Options", b"nosniff")]
_TEXT: Final = (b"Content-Type", b"text/plain; charset=utf-8")
_JSON: Final = (b"Content-Type", b"application/json")
_METRICS: Final = (b"Content-Type", CONTENT_TYPE.encode())
_NOT_AT_ALL: Final = re.compile(rb"q=0(?:\.0*)?")

#: That the process answers is all there is to it.
_ALIVE: Final = [Finding("process")]

Look = Callable[[], Sequence[Finding]]
Scrape = Callable[[], bytes]  # gives the page of numbers


def place(address: Address) -> Place:
    """By what it is known among the places that are bound."""
    return Place(address, ADMIN)


def serving(address: Address, look: Look, scrape: Scrape, event: Callable[..., None]) -> Serving:
    """What serves it: nothing of it is logged. `look` finds out how the process is, `scrape` how much."""
    settings = ListenerSettings(
        bind=(address,),
        header_timeout=_PATIENCE,
        body_timeout=_PATIENCE,
        write_timeout=_PATIENCE,
        idle_timeout=_IDLE,
    )
    return Serving(ADMIN, settings, answers(look, scrape), None, event)


def answers(look: Look, scrape: Scrape) -> Handler:
    """The handler of all that is asked there. It raises Failure for a path that it does not know."""
    paths: dict[str, Callable[[RequestHead], Response]] = {
        "/livez": lambda head: _health("livez", _ALIVE, head),
        "/readyz": lambda head: _health("readyz", look(), head),
        "/metrics": lambda head: _answer(200, [_METRICS], scrape(), head.method),
    }

    def handler(request: Request) -> Response:
        found = paths.get(request.path)
        if found is None:
            raise Failure("no_route")
        if request.head.method not in _METHODS:
            return _answer(405, [_TEXT, _ALLOW], b"405 Method Not Allowed: ask with GET or HEAD\n", b"GET")
        return found(request.head)

    return handler


def _health(check: str, findings: Sequence[Finding], head: RequestHead) -> Response:
    status = worst(findings)
    code = 503 if status == "failed" else 200
    if _wants_json(head):
        told = {"status": status, "checks": [finding.as_dict() for finding in findings]}
        return _answer(code, [_JSON], json.dumps(told, indent=2).encode() + b"\n", head.method)
    text = "ok"
    if status != "ok" or _is_verbose(head):
        text = "".join(f"{line}\n" for line in _lines(check, findings, code == 200))
    return _answer(code, [_TEXT], text.encode(), head.method)


def _lines(check: str, findings: Sequence[Finding], is_passed: bool) -> Iterator[str]:
    yield from map(str, findings)
    yield f"{check} check {'passed' if is_passed else 'failed'}"


def _is_verbose(head: RequestHead) -> bool:
    return any(part.partition(b"=")[0] == b"verbose" for part in head.query.split(b"&"))


def _wants_json(head: RequestHead) -> bool:
    """Whether JSON is named; who accepts anything gets text."""
    for one in b",".join(head.get_all(b"accept")).lower().split(b","):
        kind, *parameters = (part.strip(b" \t") for part in one.split(b";"))
        if kind == b"application/json":
            return not any(_NOT_AT_ALL.fullmatch(part) for part in parameters)
    return False


def _answer(status: int, fields: list[tuple[bytes, bytes]], body: bytes, method: bytes) -> Response:
    head = ResponseHead.make(status, fields + _ALWAYS, length=len(body), request_method=method)
    return Response(head, None if method == b"HEAD" else body)
