"""The kinds of values that only routes have: hosts, paths, wanted values, redirects, texts, field names.

Law: what a request is compared with is normalised as requests are; other spellings are mistakes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final

from ..config.kinds import TEXT, checked, list_of
from ..config.schema import Kind, quoted
from ..errors import Malformed
from ..template import Template
from ..wire.target import normal_path
from .regex import Regex

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LABELS: Final = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")

# Upstreams --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Share:
    """An upstream and how many of a hundred requests it gets."""

    upstream: str
    percent: int = 100

    def __str__(self) -> str:
        """As it is written."""
        return self.upstream if self.percent == 100 else f"{self.upstream} {self.percent}%"


_PERCENT: Final = re.compile(r"([0-9]{1,3})%")


def _parse_share(text: str) -> Share:
    name, *percent = text.split()
    if not percent:
        return Share(name)
    found = _PERCENT.fullmatch(percent[0])
    if found is None or len(percent) > 1 or not 0 <= int(found[1]) <= 100:
        raise ValueError(f"{quoted(text)} is not an upstream with its share: write NAME 90%")
    return Share(name, int(found[1]))


def _check_shares(shares: tuple[Share, ...]) -> str | None:
    whole = sum(share.percent for share in shares)
    names = [share.upstream for share in shares]
    if len(set(names)) < len(names):
        return "names an upstream twice: keep one, with the sum of the shares"
    if whole != 100:
        return f"shares out {whole}%: write shares that make 100%, such as app 90%, canary 10%"
    return None


SHARE: Final[Kind[Share]] = Kind("NAME [percent]", _parse_share)

SHARES: Final[Kind[tuple[Share, ...]]] = checked(list_of(SHARE), _check_shares)

# Hosts ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Host:
    """One host that a route serves: `exact`, or what it ends with (`suffix`, with its dot), or a regex."""

    exact: str = ""
    suffix: str = ""
    regex: Regex | None = None

    def __str__(self) -> str:
        """As it is written."""
        if self.regex is not None:
            return f"~{self.regex}"
        return self.exact or f"*{self.suffix}"


def parse_host(text: str) -> Host:
    """`example.org`, `*.example.org` or `~regex`. Raises ValueError."""
    if text.startswith("~"):
        return Host(regex=Regex(text[1:]))
    name = text.lower()
    if name == "*":
        raise ValueError("'*' is every host: leave host out")
    if name.startswith("["):
        return Host(exact=_ipv6(name))
    if name.startswith("."):
        raise ValueError(f"{quoted(text)} is two hosts: write {name[1:]}, *{name}")
    bare = name.removeprefix("*.")
    if not _LABELS.fullmatch(bare):
        raise ValueError(f"{quoted(text)} is not a host: {_host_advice(name)}")
    return Host(suffix=f".{bare}") if name.startswith("*.") else Host(exact=bare)


def _ipv6(name: str) -> str:
    try:
        return f"[{IPv6Address(name.removeprefix('[').removesuffix(']'))}]"
    except ValueError:
        raise ValueError(
            f"{quoted(name)} is not an IPv6 address in brackets: write [2001:db8::7], without a port"
        ) from None


def _host_advice(name: str) -> str:
    bare = name.rpartition("://")[2].partition("/")[0].partition(":")[0].rstrip(".")
    if bare != name and _LABELS.fullmatch(bare.removeprefix("*.")):
        return f"write {bare}, without scheme, port, path and final dot"
    try:
        encoded = name.encode("idna").decode("ascii")
    except UnicodeError:
        encoded = ""
    if encoded and encoded != name:
        return f"write {encoded}, as browsers send it"
    return "write example.org, *.example.org or ~regex"


def _parse_hosts(text: str) -> tuple[Host, ...]:
    """A regex takes the rest of its line, because it may hold commas."""
    hosts: list[Host] = []
    for line in text.split("\n"):
        start = re.search(r"(?:^|,)\s*~", line) if "~" in line else None
        names = line[: start.start()] if start else line
        if names.strip():
            hosts += _names.parse(names)
        if start:
            hosts.append(parse_host(line[start.end() - 1 :].strip()))
    return tuple(dict.fromkeys(hosts))


def _show_hosts(hosts: tuple[Host, ...]) -> str:
    shown = [f"{host}\n" if host.regex else f"{host}, " for host in hosts]
    return "".join(shown).rstrip("\n").removesuffix(", ")


_names: Final = list_of(Kind("host", parse_host))

#: Hosts: exact, `*.` wildcards and `~regex`, a regex to the end of its line.
HOSTS: Final[Kind[tuple[Host, ...]]] = Kind("list: host | *.host | ~regex", _parse_hosts, _show_hosts)


def _parse_name(text: str) -> Host:
    if text.startswith(("~", "[")):
        raise ValueError(f"{quoted(text)} is no name that TLS clients send: write example.org, *.example.org")
    return parse_host(text)


_tls_names: Final = list_of(Kind("host", _parse_name))

#: Names of a TLS server: exact and `*.` wildcards.
NAMES: Final[Kind[tuple[Host, ...]]] = Kind(
    "list: host | *.host", lambda text: tuple(dict.fromkeys(_tls_names.parse(text))), _show_hosts
)

# Paths ------------------------------------------------------------------------------------------------------


def _normal(text: str) -> str | None:
    if not text.startswith("/"):
        return f"{quoted(text)} is not a path: write it from its slash on, such as /api"
    if "?" in text:
        return f"{quoted(text)} has a query: write the path alone, and query.NAME = … for the query"
    try:
        right = normal_path(text.encode())
    except Malformed:
        return f"{quoted(text)} is a path that no request can have: requests for it get 400"
    return None if right == text else f"{quoted(text)} is not normalised, no request has it: write {right}"


def _prefix(text: str) -> str:
    return text.rstrip("/") or "/"


_PATH: Final = checked(Kind("path", str), _normal)
_PREFIX: Final = Kind("path", lambda text: _prefix(_PATH.parse(text)))


def _unique(kind: Kind[str]) -> Kind[tuple[str, ...]]:
    values = list_of(kind)
    return Kind(values.name, lambda text: tuple(dict.fromkeys(values.parse(text))), values.show)


#: One normalised path.
PATH: Final[Kind[str]] = _PATH

#: Normalised paths.
PATHS: Final[Kind[tuple[str, ...]]] = _unique(_PATH)

#: Normalised paths without a final slash, but for the root.
PREFIXES: Final[Kind[tuple[str, ...]]] = _unique(_PREFIX)

#: A regex.
REGEX: Final[Kind[Regex]] = Kind("regex", Regex, str)


# Conditions -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a value must be: this text, or anything that the regex matches."""

    text: str
    regex: Regex | None = None

    def __str__(self) -> str:
        """As it is written."""
        return self.text


def _parse_wanted(text: str) -> Wanted:
    line = TEXT.parse(text)
    return Wanted(line, Regex(line[1:]) if line.startswith("~") else None)


#: An exact value or `~regex`.
WANTED: Final[Kind[Wanted]] = Kind("text | ~regex", _parse_wanted, str)


def _method(text: str) -> str | None:
    if not _TOKEN.fullmatch(text):
        return f"{quoted(text)} is not a method: write GET, HEAD, POST …"
    if text != text.upper():
        return f"{quoted(text)} is no method that clients use, case matters: write {text.upper()}"
    return None


#: Request methods.
METHODS: Final[Kind[tuple[str, ...]]] = _unique(checked(Kind("method", str), _method))

# Actions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where a client is sent, and with which status."""

    status: int
    location: Template

    def __str__(self) -> str:
        """As it is written."""
        return f"{self.status} {self.location}"


@dataclass(frozen=True, slots=True)
class Respond:
    """What a client is answered."""

    status: int
    text: Template

    def __str__(self) -> str:
        """As it is written."""
        return f"{self.status} {self.text}".rstrip()


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A new path for what `pattern` matches; `$1` to `$9` in the replacement are its groups."""

    pattern: Regex
    replacement: str

    def __str__(self) -> str:
        """As it is written."""
        return f"{self.pattern} {self.replacement}"


_REDIRECTS: Final = (301, 302, 303, 307, 308)
_WITHOUT_BODY: Final = (204, 304)


def _parse_redirect(text: str) -> Redirect:
    words = text.split()
    status = int(words.pop(0)) if re.fullmatch(r"[0-9]{1,9}", words[0]) else 302
    if status not in _REDIRECTS:
        raise ValueError(f"{status} does not redirect: write 301, 302, 303, 307 or 308")
    if len(words) != 1:
        wrong = "has blanks in its URL: write %20" if words else "has no URL"
        raise ValueError(f"{quoted(text)} {wrong}; right is 301 https://{{host}}{{request_uri}}")
    return Redirect(status, Template.parse(TEXT.parse(words[0])))


def _parse_respond(text: str) -> Respond:
    status, *rest = text.split(None, 1)
    if not re.fullmatch(r"[2-5][0-9]{2}", status):
        raise ValueError(f"{quoted(status)} is not a status between 200 and 599: write 200 OK")
    if rest and int(status) in _WITHOUT_BODY:
        raise ValueError(f"an answer of status {status} has no text: leave it out")
    return Respond(int(status), Template.parse(rest[0] if rest else ""))


def _parse_rewrite(text: str) -> Rewrite:
    words = text.split()
    if len(words) != 2:
        raise ValueError(f"{quoted(text)} is not a regex and a replacement: write ^/v1/(.*)$ /$1")
    pattern, replacement = Regex(words[0]), TEXT.parse(words[1])
    if not replacement.startswith(("/", "$")):
        raise ValueError(f"{quoted(replacement)} is not a path: begin with a slash, or use redirect")
    for group in re.findall(r"\$([0-9])", replacement):
        if not 1 <= int(group) <= pattern.groups:
            raise ValueError(f"{quoted(pattern.pattern)} has no group ${group}: it has {pattern.groups}")
    return Rewrite(pattern, replacement)


#: `[STATUS] URL`, with variables; 302 when the status is left out.
REDIRECT: Final[Kind[Redirect]] = Kind("[status] URL with {variables}", _parse_redirect, str)

#: `STATUS [text]`, with variables.
RESPOND: Final[Kind[Respond]] = Kind("status [text with {variables}]", _parse_respond, str)

#: `REGEX REPLACEMENT`.
REWRITE: Final[Kind[Rewrite]] = Kind("regex replacement", _parse_rewrite, str)

# Fields -----------------------------------------------------------------------------------------------------

_FRAMING: Final = "the proxy frames each message itself"
_HOP: Final = "it belongs to one connection, which the proxy manages itself"
_FORBIDDEN: Final = {
    "content-length": _FRAMING,
    "transfer-encoding": _FRAMING,
    "trailer": _FRAMING,
    "connection": _HOP,
    "keep-alive": _HOP,
    "proxy-connection": _HOP,
    "te": _HOP,
    "upgrade": f"{_HOP} (see upgrade)",
    "host": "use host_header",
}


def field_name_mistake(name: str) -> str | None:
    """Why routes cannot edit the field `name`; None when they can."""
    if not _TOKEN.fullmatch(name):
        return f"{quoted(name)} is not a field name: use letters, digits and '-'"
    reason = _FORBIDDEN.get(name.lower())
    return f"{name} cannot be edited: {reason}" if reason else None


def _field_value(text: str) -> Template:
    return Template.parse(TEXT.parse(text))


#: A field value with variables.
FIELD_VALUE: Final[Kind[Template]] = Kind("text with {variables}", _field_value, str)

#: Field names to leave out.
FIELD_NAMES: Final[Kind[tuple[str, ...]]] = _unique(checked(Kind("field name", str), field_name_mistake))


def _authority(text: str) -> Template:
    template = _field_value(text)
    constant: str | None = template.constant
    allowed: Callable[[str], object] = re.compile(
        r"(?:\[[0-9A-Fa-f:.]+\]|[\w.~!$&'()*+,;=-]+)(?::[0-9]+)?"
    ).fullmatch
    if constant is not None and not (constant.isascii() and allowed(constant)):
        raise ValueError(f"{quoted(text)} is not a host: write example.org, example.org:8080 or {{host}}")
    return template


#: `host` or `host:port`, with variables.
AUTHORITY: Final[Kind[Template]] = Kind("host[:port] with {variables}", _authority, str)
