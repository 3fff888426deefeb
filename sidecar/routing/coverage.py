"""Hosts that routes serve over TLS and no certificate is for: clients would not trust the answers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from ..config.addresses import is_ip_address
from ..config.merge import Configuration
from ..net.settings import ListenerSettings
from .settings import RouteSettings
from .values import Host


def uncovered(configuration: Configuration, names: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Lines for the user, one for each host of a route.

    `names`: those that each certificate is for, lower case, wildcards as they are written. Nothing is said
    about listeners with a certificate of which they are not known.
    """
    shown = {
        key: frozenset(name for certificate in one.tls for name in names[certificate])
        for key, one in configuration.named(ListenerSettings).items()
        if one.tls and one.protocol == "http" and all(certificate in names for certificate in one.tls)
    }
    for route, settings in configuration.named(RouteSettings).items():
        for host in settings.host:
            open_to = [
                key
                for key, own in shown.items()
                if key in (settings.listener or shown) and not _is_covered(host, own)
            ]
            if open_to:
                listeners = " and ".join(f"[listener {key}]" for key in open_to)
                text = (
                    f"no certificate of {listeners} is for {host}, and clients that check refuse another: "
                    "add one to its tls, or name the listeners that the route is for"
                )
                yield configuration.mistake(RouteSettings.KIND, route, "host", text)


def _is_covered(host: Host, names: Collection[str]) -> bool:
    """A wildcard stands for one label (RFC 9525 section 6.3); that of a route, for any name below it."""
    if host.exact:
        name, parent = host.exact, host.exact.partition(".")[2]
        return name in names or f"*.{parent}" in names or is_ip_address(name.strip("[]"))
    return not host.suffix or any(name.endswith(host.suffix) for name in names)
