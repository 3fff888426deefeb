"""What the process is told, and the list of all sections that a configuration may have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from .config.addresses import BIND, Address
from .config.kinds import DURATION, TEXT, checked, choice, integer, list_of, optional, or_off
from .config.schema import Kind, Section, option
from .net.certificate_settings import CertificateSettings
from .net.name_files import setup_of
from .net.settings import ListenerSettings
from .routing.settings import RouteSettings
from .upstream.settings import UpstreamSettings


def _log_target(text: str) -> str | None:
    if text in ("stdout", "stderr", "off") or "/" in text:
        return None
    return f"'{text}' is neither stdout, stderr, off nor a path: write one of them, a path with a '/' in it"


def _name_server(text: str) -> str | None:
    try:
        setup_of((text,))
    except ValueError as error:
        return str(error)
    return None


def _of_this_process(address: Address) -> str | None:
    return (
        f"{address} is for listeners alone: write host:port or unix:/path" if address.is_inherited else None
    )


#: None: off.
_ADMIN: Final[Kind[Address | None]] = or_off(optional(checked(BIND, _of_this_process)), None)


@dataclass(frozen=True, slots=True)
class SidecarSettings(Section):
    """`[sidecar]`. Times in seconds."""

    KIND: ClassVar[str] = "sidecar"
    NAMED: ClassVar[bool] = False
    DOC: ClassVar[str] = "The process: its logs, its limits and how it ends."

    admin: Address | None = option(
        None,
        _ADMIN,
        "Where the process is asked about itself, in plain HTTP: host:port or unix:/path. /livez says that "
        "it runs, /readyz whether to send it requests (503 from SIGTERM on), /metrics is for Prometheus. "
        "Whoever reaches the address may ask, and is not counted in max_connections.",
    )
    drain_delay: float = option(
        0.0, DURATION, "How long the process goes on as before after SIGTERM, so that others stop sending."
    )
    drain_timeout: float = option(
        30.0, DURATION, "How long exchanges may then take to finish before they are cut off."
    )
    access_log: str = option(
        "stdout",
        checked(TEXT, _log_target),
        "Where the access log goes: stdout, stderr, off or a path with a '/'.",
    )
    log_format: str = option(
        "auto",
        choice("json", "console", "auto"),
        "How logs are written; auto is console on a terminal, else json.",
    )
    log_level: str = option(
        "info", choice("debug", "info", "warning", "error"), "The least severe events that are logged."
    )
    resolver: tuple[str, ...] = option(
        (),
        list_of(checked(TEXT, _name_server)),
        "Name servers: address or address:port, IPv6 in brackets; empty: those of /etc/resolv.conf.",
    )
    max_connections: int = option(
        10_000,
        integer(1, 1_000_000),
        "Largest number of client connections at one time; more wait to be accepted.",
    )


#: Every section, in the order of the manual.
SECTIONS: Final[tuple[type[Section], ...]] = (
    SidecarSettings,
    ListenerSettings,
    CertificateSettings,
    UpstreamSettings,
    RouteSettings,
)
