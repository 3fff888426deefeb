"""What would happen to a request, and why: the route, those passed over, every value with its origin.

Law: the request is parsed as a client's bytes are, and the route is chosen by the router that serves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ..config.merge import Configuration
from ..config.schema import Section
from ..config.show import Shown, values
from ..errors import ConfigurationError, Malformed
from ..message import Request
from ..net.https import https_redirect
from ..net.settings import ListenerSettings
from ..upstream.preview import Preview, preview
from ..upstream.settings import UpstreamSettings
from . import tcp
from .asked import Question
from .check import build, everywhere, unknown_name
from .reasons import PassedOver, passed_over
from .settings import ON_THE_WAY, RouteSettings
from .table import Route, Router
from .target import upstream_target

#: Routes passed over that the text lists besides those that nearly matched.
_LISTED: Final = 20


@dataclass(slots=True)
class Explanation:
    """The answer to one question: `str` is for people, `as_dict` for programs."""

    question: Question
    listener: str  # empty when none is configured
    path: str = ""  # normalised
    tls: dict[str, str] = field(default_factory=dict)  # what is taken for known; empty without TLS
    route: str = ""  # name, empty when there is none
    origin: str = ""  # file:line of the route
    refused: str = ""  # why the request meets no route at all, empty when it does
    match: dict[str, str] = field(default_factory=dict)
    outcome: str = ""  # what the route does
    target: str = ""  # what the upstream is asked for, empty when none is asked
    upstreams: list[Preview] = field(default_factory=list)  # those that the route asks, with their servers
    passed_over: list[PassedOver] = field(default_factory=list)
    values: list[tuple[str, Shown]] = field(default_factory=list)  # (section's header, value)

    def as_dict(self) -> dict[str, Any]:
        """Plain data; origins are `file:line`, or null for a default."""
        return {
            "method": self.question.method,
            "url": self.question.url,
            "listener": self.listener or None,
            "path": self.path or None,
            "tls": self.tls or None,
            "refused": self.refused or None,
            "route": self.route or None,
            "origin": self.origin or None,
            "outcome": self.outcome or None,
            "target": self.target or None,
            "match": self.match,
            "upstreams": [one.as_dict() for one in self.upstreams],
            "passed_over": [
                {"route": one.route, "origin": one.origin, "matches": one.is_match, "why": one.why}
                for one in self.passed_over
            ],
            "values": [
                {
                    "section": section,
                    "key": shown.key,
                    "value": shown.text,
                    "origin": None if shown.origin is None else str(shown.origin),
                }
                for section, shown in self.values
            ],
        }

    def __str__(self) -> str:
        """Some lines: what happens, which server answers, what was passed over, what is in effect."""
        parts = (self._head(), self._upstream_lines(), self._passed_over_lines(), self._value_lines())
        return "\n".join(line for part in parts for line in part)

    def _head(self) -> Iterator[str]:
        method = "" if self.question.is_tcp else f"{self.question.method} "
        yield f"{method}{_plain(self.question.url)}"
        if self.listener:
            yield f"  listener  {self.listener}"
        if self.path:
            yield f"  path      {_plain(self.path)}"
        if self.tls:
            yield f"  tls       {', '.join(f'{key} {_plain(text)}' for key, text in self.tls.items())}"
        if self.refused:
            yield f"  refused   {self.refused}"
            return
        if not self.route and self.outcome:
            yield f"  outcome   {_plain(self.outcome)}"
            return
        if not self.route:
            yield f"  route     none: {'closed' if self.question.is_tcp else '404'}, no_route"
            return
        yield f"  route     {self.route} ({self.origin})"
        for name, value in self.match.items():
            yield f"  match     {name} = {_plain(value)}"
        yield f"  outcome   {_plain(self.outcome)}"
        if self.target:
            yield f"  target    {_plain(self.target)}"

    def _upstream_lines(self) -> Iterator[str]:
        for one in self.upstreams:
            yield ""
            yield from map(_plain, one.lines())

    def _passed_over_lines(self) -> Iterator[str]:
        if not self.passed_over:
            return
        yield ""
        yield "passed over, in the order of precedence:"
        near = [one for one in self.passed_over if one.is_near]
        listed = self.passed_over if len(self.passed_over) <= _LISTED else near[:_LISTED]
        for one in listed:
            yield f"  {one.route} ({one.origin}): {one.why}"
        if len(listed) < len(self.passed_over):
            yield f"  and {len(self.passed_over) - len(listed)} more (--json lists them all)"

    def _value_lines(self) -> Iterator[str]:
        section = ""
        for header, shown in self.values:
            if header != section:
                section = header
                yield ""
                yield header
            text = shown.text.replace("\n", "\n    ")
            yield f"  {shown.key} = {text}  ({shown.origin or 'default'})"


def explain(  # the arguments are those of the command
    configuration: Configuration,
    method: str,
    url: str,
    headers: Sequence[tuple[str, str]],
    client: str,
    listener: str | None,
) -> Explanation:
    """What happens to a request for `url`: a URL, or a path. `listener` None: the one that it fits best.

    Raises ConfigurationError with one line when the question itself is wrong.
    """
    return answer(configuration, Question(method, url, tuple(headers), client), listener)


def answer(configuration: Configuration, question: Question, listener: str | None) -> Explanation:
    """The same for a question that may say more."""
    found = _candidates(configuration, question, listener)
    # Of several listeners the first that has a route for the request.
    best = next((one for one in found if one.explanation.route), found[0])
    best.complete(configuration)
    return best.explanation


class _Asked:
    """A question put to one listener."""

    __slots__ = ("_request", "_router", "_route", "explanation")

    def __init__(self, question: Question, listener: str, settings: ListenerSettings | None, router: Router):
        self.explanation = Explanation(question, listener)
        self._router = router
        self._route: Route | None = None
        self._request: Request | None = None
        try:
            request = question.request(listener, settings)
            port = 0 if settings is None or settings.tls else settings.https_redirect
            elsewhere = https_redirect(request, port) if port else None
        except Malformed as malformed:
            self.explanation.refused = f"{malformed.status}, malformed_request: {malformed.rule}"
            return
        self.explanation.tls = _tls(request)
        if elsewhere is not None:
            self.explanation.outcome = f"redirect {elsewhere[0]} to {elsewhere[1].decode('ascii')}"
            return
        self._request = request
        self._route = request.route = router.choose(request)
        self.explanation.path = request.path
        self.explanation.route = "" if self._route is None else self._route.name

    def complete(self, configuration: Configuration) -> None:
        """Tell what the route does, why it was chosen, and what is in effect."""
        request, route, told = self._request, self._route, self.explanation
        if request is None:
            return
        told.passed_over = passed_over(self._router, request, route, configuration)
        if route is None:
            return
        told.origin = str(configuration.origin(RouteSettings.KIND, route.name, ""))
        told.match = request.match or {}
        if route.is_tcp:
            told.outcome = f"upstream {', '.join(map(str, route.settings.upstream))}"
        else:
            told.outcome, told.target = _outcome(route.settings, request)
        if route.is_tcp or told.target:
            told.upstreams = list(_upstreams(configuration, route, request))
        told.values = list(_values(configuration, route))


def _candidates(configuration: Configuration, question: Question, listener: str | None) -> list[_Asked]:
    known = configuration.named(ListenerSettings)
    routers = build(configuration)
    if listener is not None:
        if listener not in known:
            raise ConfigurationError([unknown_name("listener", listener, known)])
        wrong = _unfit(known[listener], question)
        if wrong is not None:
            raise ConfigurationError([f"[listener {listener}] {wrong}"])
        return [_Asked(question, listener, known[listener], routers[listener])]
    listeners = {name: one for name, one in known.items() if _unfit(one, question) is None}
    if question.is_tcp and not listeners:
        raise ConfigurationError(["no listener is for TCP: add [listener NAME] with protocol = tcp"])
    if question.has_handshake and not listeners:
        raise ConfigurationError(["no listener has TLS: add tls = CERTIFICATE to one"])
    if not listeners:
        return [_Asked(question, "", None, everywhere(configuration))]
    port = question.port
    fitting = [name for name, one in listeners.items() if any(a.port == port and port for a in one.bind)]
    fitting = fitting or list(listeners)
    same = [name for name in fitting if bool(listeners[name].tls) is question.wants_tls]
    return [_Asked(question, name, listeners[name], routers[name]) for name in same or fitting]


def _unfit(listener: ListenerSettings, question: Question) -> str | None:
    """Why the listener cannot be asked this; None when it can."""
    if question.is_tcp != (listener.protocol == "tcp"):
        right = "http://HOST/PATH" if question.is_tcp else "tcp://NAME"
        return f"is for {listener.protocol}: ask for {right}, or another one"
    if question.has_handshake and not listener.tls:
        return "has no TLS, so that there is no handshake: ask another one"
    return None


def _tls(request: Request) -> dict[str, str]:
    if request.tls is None:
        return {}
    found = {"version": request.tls.version, "sni": request.tls.sni}
    if request.tls.has_certificate:
        found["client_subject"] = request.tls.text("client_subject")
        found["client_san"] = request.tls.text("client_san")
    return {key: text for key, text in found.items() if text}


def _outcome(settings: RouteSettings, request: Request) -> tuple[str, str]:
    """(what the route does, what its upstream is asked for)."""
    if settings.redirect is not None:
        return f"redirect {settings.redirect.status} to {settings.redirect.location.render(request)}", ""
    if settings.respond is not None:
        return f"respond {settings.respond.status} {settings.respond.text.render(request)}".rstrip(), ""
    try:
        target = upstream_target(settings, request).decode("utf-8", "backslashreplace")
    except Malformed as malformed:
        return f"refused: {malformed.status}, malformed_request: {malformed.rule}", ""
    host = settings.host_header
    shown = (host.render_bytes(request) if host is not None else b"") or request.head.authority
    upstream = ", ".join(map(str, settings.upstream))
    return f"upstream {upstream}, Host: {shown.decode('utf-8', 'backslashreplace')}", target


def _upstreams(configuration: Configuration, route: Route, request: Request) -> Iterator[Preview]:
    known = configuration.named(UpstreamSettings)
    for share in route.settings.upstream:
        name, settings = share.upstream, known.get(share.upstream)
        if settings is None:
            continue
        wrong = tcp.unfit(name, settings, bool(route.settings.sni)) if route.is_tcp else None
        if wrong is None:
            yield preview(name, share.percent, settings, request)
        else:
            yield Preview(name, share.percent, str(settings.balance), [], [wrong])


def _values(configuration: Configuration, route: Route) -> Iterator[tuple[str, Shown]]:
    """Every value that holds for the request; timeouts that the route leaves to its upstream stand there."""
    overridden = set()
    for shown in _written(configuration, RouteSettings.KIND, route.name, route.settings):
        if route.is_tcp and shown.key not in tcp.OPTIONS:
            continue
        if route.settings.upstream or shown.key not in ON_THE_WAY:
            overridden.add(shown.key)
            yield f"[route {route.name}]", shown
    upstreams = configuration.named(UpstreamSettings)
    for name in (share.upstream for share in route.settings.upstream if share.upstream in upstreams):
        for shown in _written(configuration, UpstreamSettings.KIND, name, upstreams[name]):
            if shown.key not in overridden:
                yield f"[upstream {name}]", shown


def _written(configuration: Configuration, kind: str, name: str, section: Section) -> Iterator[Shown]:
    return (one for one in values(configuration, kind, name, section) if one.text or one.origin is not None)


def _plain(text: str) -> str:
    """`text` without what would disturb a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
