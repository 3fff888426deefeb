"""How long what stands in the files of a certificate is good, and what in them is likely not meant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from ..wire.certificate import Certificate
from ..wire.revocation import RevocationList
from .certificate_files import Flaw, Loaded, Material
from .certificate_settings import CertificateSettings

_DAY: Final = 86_400

#: Days before the end when it is told, the first step of which a certificate lives at least three times.
STEPS: Final = (14, 7, 3, 1, 0)


class Ending(NamedTuple):
    """When something is good no more, in seconds since 1970, and how near that is."""

    sha256: str
    not_after: float
    step: int | None  # of STEPS
    told: dict[str, str]  # what it is, for events; `about` is the option that names its file


def endings(loaded: Loaded, now: float) -> Iterator[Ending]:
    """Of all that TLS is served with."""
    for leaf in loaded.leaves:
        told = {"about": "certificate", "serial": leaf.serial}
        yield Ending(leaf.sha256, leaf.not_after, step(leaf, now), told)
    for one in loaded.lists:
        told = {"about": "client_crl", "issuer": one.issuer}
        yield Ending(one.sha256, one.next_update, list_step(one, now), told)


def step(leaf: Certificate, now: float) -> int | None:
    """The smallest of STEPS that is reached; None: none is. Short lives have fewer steps."""
    left = (leaf.not_after - now) / _DAY
    lifetime = (leaf.not_after - leaf.not_before) / _DAY
    reached = [days for days in STEPS if left <= days and 3 * days <= lifetime]
    return min(reached, default=None)


def list_step(one: RevocationList, now: float) -> int | None:
    """1 on its last day, 0 from its end, else None. Of one that lives for a day, the last third counts."""
    left = one.next_update - now
    if left <= 0:
        return 0
    return 1 if left <= min(_DAY, (one.next_update - one.this_update) / 3) else None


# Doubts ----------------------------------------------------------------------------------------------------


def doubts(settings: CertificateSettings, material: Material, now: float) -> Iterator[Flaw]:
    """What is right, and likely not meant."""
    for path, chain in zip(settings.certificate, material.chains, strict=True):
        for text in (*_of_time(chain[0], now), *_of_chain(chain)):
            yield Flaw("certificate", path, text)
    for one in material.lists:
        for text in _of_list(one, now):
            yield Flaw("client_crl", settings.client_crl, text)
    for path in material.open_keys:
        yield Flaw("key", path, "may be read by everybody on this machine: chmod o-r")


def _of_time(leaf: Certificate, now: float) -> Iterator[str]:
    if leaf.not_before > now:
        yield f"is not valid yet: in {_days(leaf.not_before - now)}"
    reached = step(leaf, now)
    if reached == 0:
        yield f"expired {_days(now - leaf.not_after)} ago: renew it"
    elif reached is not None:
        yield f"expires in {_days(leaf.not_after - now)}: renew it"


def _of_list(one: RevocationList, now: float) -> Iterator[str]:
    which = f"the list of {one.issuer}"
    if one.this_update > now:
        yield f"{which} is not valid yet: in {_days(one.this_update - now)}, until then clients are refused"
    reached = list_step(one, now)
    if reached == 0:
        yield f"{which} expired {_days(now - one.next_update)} ago, so clients are refused: renew it"
    elif reached is not None:
        yield f"{which} expires in {_days(one.next_update - now)}, then clients are refused: renew it"


def _days(seconds: float) -> str:
    days = int(seconds // _DAY)
    return "1 day" if days == 1 else f"{days} days" if days else "less than a day"


def _of_chain(chain: Iterable[Certificate]) -> Iterator[str]:
    leaf, *rest = chain
    if not (leaf.dns or leaf.ips):
        yield "names no server (it has no subjectAltName for one): clients refuse it"
    before = leaf
    for number, one in enumerate(rest, 2):
        if one.subject != before.issuer:
            yield f"its certificate {number} has not issued number {number - 1}: put them in order"
            return
        before = one
    if not rest and leaf.issuer != leaf.subject:
        yield (
            f"holds no chain: unless clients know {leaf.issuer} as a root, append the certificate of that "
            "authority"
        )
