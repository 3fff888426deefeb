"""Texts with request-time variables, such as `https://{host}{request_uri}`, compiled when they are loaded.

A template never fails while it is rendered: what the request does not have renders empty. Bytes of the
client that are not UTF-8 travel as surrogate escapes, so `render_bytes` gives them back unchanged.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import unquote_to_bytes

from .config.schema import Kind, quoted
from .message import Request

Getter = Callable[[Request], str]

#: Of the control characters only HTAB may stand in a field value (RFC 9110 section 5.5).
_CONTROLS: Final = bytes(c for c in range(32) if c != 9) + b"\x7f"
_TOKEN: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|\{")
_FIELD_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: A query of more parameters is not searched to its end: a variable must not cost what a client decides.
_MAX_PARAMETERS: Final = 1000


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _header(name: str) -> Getter:
    key = name.lower().encode("ascii")

    def get(request: Request) -> str:
        values = request.head.get_all(key)
        return _text(values[0] if len(values) == 1 else b", ".join(values))

    return get


def _cookie(name: str) -> Getter:
    key = name.encode("utf-8")

    def get(request: Request) -> str:
        for line in request.head.get_all(b"cookie"):
            for pair in line.split(b";"):
                found, equals, value = pair.partition(b"=")
                if equals and found.strip(b" \t") == key:
                    return _text(value.strip(b" \t"))
        return ""

    return get


def _parameter(name: str) -> Getter:
    key = name.encode("utf-8")

    def get(request: Request) -> str:
        query = request.head.query
        if not query:
            return ""
        for pair in query.split(b"&", _MAX_PARAMETERS)[:_MAX_PARAMETERS]:
            found, _, value = pair.partition(b"=")
            if found == key or _form_decoded(found) == key:
                return _text(_form_decoded(value))
        return ""

    return get


def _form_decoded(value: bytes) -> bytes:
    return unquote_to_bytes(value.replace(b"+", b" "))


def _match(name: str) -> Getter:
    def get(request: Request) -> str:
        match = request.match
        return match.get(name, "") if match else ""

    return get


def _tls(name: str) -> Getter:
    key = name.removeprefix(_TLS_PREFIX)

    def get(request: Request) -> str:
        tls = request.tls
        return "" if tls is None else str(tls.text(key))

    return get


_TLS_PREFIX: Final = "tls."
#: What is known of the client's TLS connection; net.tls_info has the values.
_TLS: Final[dict[str, str]] = {
    "tls.version": "Version of TLS, such as TLSv1.3; this and all of tls are empty without TLS.",
    "tls.cipher": "Cipher suite, by OpenSSL's name.",
    "tls.sni": "Name that the client asked for in the handshake.",
    "tls.alpn": "Protocol agreed upon in the handshake: h2 or http/1.1; empty when the client offers none.",
    "tls.resumed": "on when the handshake resumed an earlier session, else off.",
    "tls.client_verify": "none without a client certificate, success, or failed: and why.",
    "tls.client_subject": "Subject of the client's certificate (RFC 4514), like all below only if verified.",
    "tls.client_issuer": "Its issuer (RFC 4514).",
    "tls.client_serial": "Its serial number, in upper case hexadecimal digits.",
    "tls.client_fingerprint": "Its SHA-256, in lower case hexadecimal digits.",
    "tls.client_san": "All its alternative names: DNS names, URIs, addresses, mail addresses.",
    "tls.client_dns": "Its DNS names.",
    "tls.client_uri": "Its URIs.",
    "tls.client_spiffe": "Its SPIFFE ID, if it has one and no other URI.",
    "tls.client_certificate": "The certificate itself: PEM, percent-encoded.",
    "tls.client_not_after": "When it expires, in seconds since 1970.",
}
_PLAIN: Final[dict[str, Getter]] = {
    "client_ip": lambda request: request.client,
    "host": lambda request: request.host,
    "method": lambda request: request.head.method.decode("ascii"),
    "scheme": lambda request: request.scheme,
    "path": lambda request: request.path,
    "query": lambda request: _text(request.head.query),
    "request_uri": lambda request: _text(request.head.origin),
    "listener": lambda request: request.listener,
    "route": lambda request: "" if request.route is None else str(request.route.name),
    **{name: _tls(name) for name in _TLS},
}
_FAMILIES: Final[dict[str, Callable[[str], Getter]]] = {
    "header": _header,
    "cookie": _cookie,
    "query": _parameter,
    "match": _match,
}

#: What may stand between braces, with one sentence each, for the manual. `x` stands for a name.
VARIABLES: Final[dict[str, str]] = {
    "client_ip": "Address of the client, trusted proxies skipped.",
    "host": "Host the client asked for: lower case, no port.",
    "method": "Request method.",
    "scheme": "http or https, as the client used it.",
    "path": "Normalised path: decoded, dot segments resolved, slashes merged.",
    "query": "Query as sent, without the question mark.",
    "request_uri": "Path and query as sent, byte for byte.",
    "listener": "Name of the listener.",
    "route": "Name of the route.",
    "header.x": "Value of the request's field x; several lines are joined with commas.",
    "cookie.x": "Value of the cookie x.",
    "query.x": "Decoded value of the first query parameter x.",
    "match.x": "What the group x of the route's regex matched.",
    **_TLS,
}


class Template:
    """A text with variables. Two templates of the same text are equal.

    `constant` is the text when there is no variable, else None; `constant_bytes` the same as a field value.
    `variables` names the variables, in order, once each.
    """

    __slots__ = ("_getter", "_parts", "constant", "constant_bytes", "text", "variables")

    def __init__(self, text: str) -> None:
        self.text = text
        names: list[str] = []
        parts: list[str | Getter] = []
        for literal, name in _tokens(text):
            if name is not None:
                parts.append(_getter(name))
                names.append(name)
            elif parts and isinstance(parts[-1], str):
                parts[-1] += literal
            else:
                parts.append(literal)
        self._parts = tuple(parts)
        self.variables = tuple(dict.fromkeys(names))
        self.constant = None if names else "".join(part for part in parts if isinstance(part, str))
        self.constant_bytes = None if self.constant is None else field_value(self.constant)
        # A lone variable, such as the key {client_ip}, needs no joining.
        lone = parts[0] if len(parts) == 1 else None
        self._getter = None if isinstance(lone, str) else lone

    @classmethod
    def parse(cls, text: str) -> Template:
        """The template that `text` writes; `{{` is a brace. Raises ValueError on a mistake."""
        return cls(text)

    @property
    def literal_start(self) -> str:
        """The text before the first variable."""
        return self._parts[0] if self._parts and isinstance(self._parts[0], str) else ""

    def render(self, request: Request) -> str:
        """The text for this request. Not safe in a field value: use `render_bytes` there."""
        if self._getter is not None:
            return self._getter(request)
        if self.constant is not None:
            return self.constant
        return "".join([part if isinstance(part, str) else part(request) for part in self._parts])

    def render_bytes(self, request: Request) -> bytes:
        """The text for this request as a field value: control characters are left out, outer blanks too."""
        if self.constant_bytes is not None:
            return self.constant_bytes
        return field_value(self.render(request))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Template) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<Template {self.text!r}>"


def field_value(text: str) -> bytes:
    """`text` as bytes that may stand in a field value: no control character but HTAB, no blanks around."""
    return text.encode("utf-8", "surrogateescape").translate(None, _CONTROLS).strip(b" \t")


def _tokens(text: str) -> Iterator[tuple[str, str | None]]:
    """(literal, None) or ("", variable), in order."""
    at = 0
    for token in _TOKEN.finditer(text):
        if token.start() > at:
            yield text[at : token.start()], None
        at = token.end()
        if token[0] in ("{{", "}}"):
            yield token[0][0], None
        elif token[1] is None:
            raise ValueError(
                f"{quoted(text)} has a brace that is not closed: write {{name}}, or {{{{ for a brace"
            )
        else:
            yield "", token[1]
    if at < len(text):
        yield text[at:], None


def _getter(variable: str) -> Getter:
    if variable in _PLAIN:
        return _PLAIN[variable]
    prefix, dot, name = variable.partition(".")
    family = _FAMILIES.get(prefix)
    if not dot or family is None:
        raise ValueError(f"{quoted('{' + variable + '}')} is not a variable: {_suggestion(variable)}")
    if not name or (prefix in ("header", "cookie") and not _FIELD_NAME.fullmatch(name)):
        raise ValueError(f"{quoted('{' + variable + '}')} needs a name after the dot, such as {{{prefix}.x}}")
    return family(name)


def _suggestion(variable: str) -> str:
    prefix, dot, name = variable.partition(".")
    if prefix == "tls":
        near = difflib.get_close_matches(variable, _TLS, 1, 0.0)
    elif dot:
        families = difflib.get_close_matches(prefix, _FAMILIES, 1, 0.5)
        near = [f"{families[0]}.{name or 'x'}"] if families else []
    else:
        near = difflib.get_close_matches(variable, _PLAIN, 1, 0.5)
    if near:
        return f"did you mean {{{near[0]}}}?"
    known = [*(name for name in VARIABLES if name not in _TLS), "tls.x"]
    return "known are " + ", ".join(f"{{{name}}}" for name in known)


TEMPLATE: Final[Kind[Template]] = Kind("text with {variables}", Template.parse, str)
