"""Whether requests should be sent to this process, and what is not as it should be.

Law: it fails where another process would do better. What another one has in common with this one (a name that
nobody can resolve, servers that are down, a bad change) is said and fails nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from .upstream.server import Server
from .upstreams import Upstream

#: How many of a kind are named.
_NAMED: Final = 20

Status = Literal["ok", "degraded", "failed"]

_MARKS: Final[dict[Status, str]] = {"ok": "+", "degraded": "!", "failed": "-"}


class Finding(NamedTuple):
    """What was found where one thing was looked at. `detail` is for people; empty when all is well."""

    check: str
    status: Status = "ok"
    detail: str = ""

    def __str__(self) -> str:
        """A line, as Kubernetes writes them; whatever is in it, it is one line."""
        said = self.detail or f"{self.check} ok"
        printable = "".join(
            c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in said
        )
        return f"[{_MARKS[self.status]}]{printable}"

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"check": self.check, "status": self.status, "detail": self.detail}


def worst(findings: Iterable[Finding]) -> Status:
    """What all of them come to."""
    found = {finding.status for finding in findings}
    return "failed" if "failed" in found else "degraded" if "degraded" in found else "ok"


class Readiness:
    """What is known of the process as a whole; whoever knows it writes it here."""

    __slots__ = ("is_draining", "is_serving", "refused")

    def __init__(self) -> None:
        self.is_serving = False
        self.is_draining = False  # it was told to end
        self.refused: Sequence[str] = ()  # the mistakes of the last reload; none: it was not refused

    def findings(
        self, upstreams: Iterable[Upstream], certificates: Mapping[str, float], now: float
    ) -> list[Finding]:
        """All there is to say. `certificates`: name → seconds left; `now`: of the monotonic clock."""
        known = list(upstreams)
        return [
            self._process(),
            self._configuration(),
            _degraded("names", "names not resolved yet", _unresolved(known)),
            _degraded("upstreams", "upstreams without a usable server", _unusable(known, now)),
            _degraded("certificates", "certificates that have expired", _expired(certificates)),
        ]

    def _process(self) -> Finding:
        if self.is_draining:
            return Finding("process", "failed", "draining")
        if not self.is_serving:
            return Finding("process", "failed", "starting")
        return Finding("process")

    def _configuration(self) -> Finding:
        return _degraded("configuration", "reload refused", self.refused)


def _degraded(check: str, what: str, found: Sequence[str]) -> Finding:
    if not found:
        return Finding(check)
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return Finding(check, "degraded", f"{what}: {'; '.join(found[:_NAMED])}{more}")


def _unresolved(upstreams: Iterable[Upstream]) -> list[str]:
    return [
        f"{name}: {why} (upstream {upstream.name})"
        for upstream in upstreams
        for name, why in upstream.unknown.items()
    ]


def _unusable(upstreams: Iterable[Upstream], now: float) -> list[str]:
    """Upstreams all of whose servers are out. One without any has names, of which is told already."""
    return [
        f"{upstream.name} ({_told(upstream.servers, now)})"
        for upstream in upstreams
        if upstream.servers and not any(server.is_fit(now) for server in upstream.servers)
    ]


def _told(servers: Sequence[Server], now: float) -> str:
    more = f", {len(servers) - _NAMED} more" if len(servers) > _NAMED else ""
    return ", ".join(f"{server.name} {_why(server, now)}" for server in servers[:_NAMED]) + more


def _why(server: Server, now: float) -> str:
    if server.down:
        return "is down by configuration"
    if not server.state.healthy:
        return "has not passed its checks"
    return "is ejected" if server.state.ejected_until > now else "has failed too often"


def _expired(certificates: Mapping[str, float]) -> list[str]:
    return [name for name, left in certificates.items() if left <= 0]
