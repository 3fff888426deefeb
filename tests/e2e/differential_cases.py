"""What a case of the differential test is: what the client sends, and what the upstream answers."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.differential_exchange import ClientStep
from tests.support.differential_upstream import Act, Script

READ = Act.READ_BODY

#: What an upstream says when the case is about something else.
OK: Script = (READ, b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok")


@dataclass(frozen=True, slots=True)
class Case:
    """One conversation. `own`: a proxy answers by itself, so only status and Location are compared."""

    name: str
    steps: tuple[ClientStep, ...]
    scripts: tuple[Script, ...] = (OK,)
    methods: tuple[str, ...] = ("GET",)  # of the requests, one for each answer that is expected
    own: bool = False
    probe: bool = True  # whether it is asked if the connection stays open
    nginx_hangs: bool = False  # nginx never ends its answer, so it is not waited for

    def __str__(self) -> str:
        return self.name


def head(target: str = "/", *lines: str, method: str = "GET", version: str = "HTTP/1.1") -> bytes:
    """A request head for example.org; `lines` follow Host and are sent as they are, in Latin-1."""
    all_lines = (f"{method} {target} {version}", "Host: example.org", *lines)
    return "".join(f"{line}\r\n" for line in all_lines).encode("latin-1") + b"\r\n"


def raw(*lines: bytes) -> bytes:
    """A head of exactly these lines."""
    return b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def ask(name: str, target: str = "/", *lines: str, method: str = "GET") -> Case:
    """One request without a body, passed on to the upstream."""
    return Case(name, (head(target, *lines, method=method),), methods=(method,))


def send(name: str, body: bytes, *lines: str, method: str = "POST", target: str = "/") -> Case:
    """One request with a body as it is framed, passed on to the upstream."""
    return Case(name, (head(target, *lines, method=method), body), methods=(method,))


def refused(name: str, *pieces: bytes, method: str = "GET") -> Case:
    """What a proxy answers by itself."""
    return Case(name, pieces, methods=(method,), own=True)


def disputed(name: str, target: str = "/", *lines: str, method: str = "GET") -> Case:
    """One request that one of the proxies refuses and the other passes on."""
    return refused(name, head(target, *lines, method=method), method=method)


def answered(
    name: str,
    *script: bytes | Act,
    method: str = "GET",
    version: str = "HTTP/1.1",
    fields: tuple[str, ...] = (),
    own: bool = False,
    nginx_hangs: bool = False,
) -> Case:
    """A request for which the upstream plays a script; see Case for the last two."""
    request = head("/", *fields, method=method, version=version)
    return Case(name, (request,), ((READ, *script),), (method,), own, nginx_hangs=nginx_hangs)


def fields(status: str, *lines: str, version: str = "HTTP/1.1") -> bytes:
    """A response head; `lines` are sent as they are, in Latin-1."""
    return "".join(f"{line}\r\n" for line in (f"{version} {status}", *lines)).encode("latin-1") + b"\r\n"
