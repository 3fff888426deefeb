"""The files of a `[certificate NAME]`: read, seen to belong together, and made into what TLS serves with.

Law: reading blocks, so it belongs into a thread; a file is only taken as a whole and with all the others.
What is secret is in no text: neither in a message nor in what a traceback would show.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ..wire.certificate import Certificate, parse, pem_blocks
from ..wire.octets import Unreadable
from ..wire.revocation import PEM as LISTS
from ..wire.revocation import RevocationList
from ..wire.revocation import parse as parse_list
from .certificate_settings import CertificateSettings
from .tls import Pair, ServerContext, Tickets, TlsError

#: Bytes of a file that are read; a list of revoked certificates may be long.
_LARGEST: Final = 64 << 20

_OTHERS_MAY_READ: Final = 0o004


class Flaw(NamedTuple):
    """Why the files cannot be used. `key`: the option that names the file, or whose value is wrong."""

    key: str
    file: str  # empty: it is about the value
    text: str

    def __str__(self) -> str:
        return f"{self.file}: {self.text}" if self.file else self.text


class Flawed(NamedTuple):
    """Files that cannot be used, and why."""

    mark: bytes  # as that of what can be used
    flaws: tuple[Flaw, ...]  # at least one

    @property
    def flaw(self) -> Flaw:
        """The first."""
        return self.flaws[0]


@dataclass(frozen=True, slots=True)
class Material:
    """What stands in the files of one `[certificate NAME]`."""

    pairs: tuple[Pair, ...] = field(repr=False)
    client_ca: bytes = field(repr=False)
    client_crl: bytes = field(repr=False)
    chains: tuple[tuple[Certificate, ...], ...]  # of each certificate: itself, then who vouches for it
    lists: tuple[RevocationList, ...]  # of each authority, where clients are verified by them
    open_keys: tuple[str, ...]  # files of keys that everybody may read

    @property
    def leaves(self) -> tuple[Certificate, ...]:
        """The server's own certificates."""
        return tuple(chain[0] for chain in self.chains)


class Found(NamedTuple):
    """What a look at the files gave: `material`, or flaws."""

    mark: bytes  # the same as long as the files are, and whoever may read them
    material: Material | None
    flaws: tuple[Flaw, ...]


class PemFile(NamedTuple):
    """What stands in a file."""

    data: bytes
    mode: int
    trouble: str  # why there is no data; empty: there is

    def __repr__(self) -> str:
        return f"<{len(self.data)} bytes {self.trouble}>"


def look(settings: CertificateSettings, seen: bytes = b"") -> Found | None:
    """Read the files (blocks); None when their mark is `seen`: nothing is new."""
    files = {path: read_file(path) for path in settings.files}
    mark = mark_of(files)
    if mark == seen:
        return None
    named = [("certificate", path) for path in settings.certificate] + [
        ("key", path) for path in settings.key
    ]
    named += [(key, path) for key in ("client_ca", "client_crl") if (path := getattr(settings, key))]
    flaws = [Flaw(key, path, files[path].trouble) for key, path in named if files[path].trouble]
    chains: list[tuple[Certificate, ...]] = []
    for path in settings.certificate:
        if not files[path].trouble:
            try:
                chains.append(_chain(files[path].data))
            except ValueError as error:
                flaws.append(Flaw("certificate", path, str(error)))
    if flaws:
        return Found(mark, None, tuple(flaws))
    pairs = zip(settings.certificate, settings.key, strict=True)
    material = Material(
        tuple(Pair(files[certificate].data, files[key].data) for certificate, key in pairs),
        files[settings.client_ca].data if settings.client_ca else b"",
        files[settings.client_crl].data if settings.client_crl else b"",
        tuple(chains),
        _lists(files[settings.client_crl].data) if settings.has_revocation else (),
        tuple(path for path in settings.key if files[path].mode & _OTHERS_MAY_READ),
    )
    return Found(mark, material, ())


def mark_of(files: Mapping[str, PemFile]) -> bytes:
    """Another one when any of these files says something else, or cannot be read for another reason."""
    digest = hashlib.sha256()
    for name, file in files.items():
        for part in (os.fsencode(name), file.trouble.encode(), file.data):
            digest.update(b"%d:" % len(part))
            digest.update(part)
    return digest.digest()


def read_file(path: str) -> PemFile:
    """Read a file that may hold PEM (blocks); it is not looked into."""
    try:
        # Without O_NONBLOCK a FIFO would stop the thread for good.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return PemFile(b"", 0, "is no file: name a file (PEM)")
            data = file.read(_LARGEST + 1)
    except OSError as error:
        return PemFile(b"", 0, _advice(error))
    if len(data) > _LARGEST:
        return PemFile(b"", 0, f"has more than {_LARGEST >> 20} MB: name a file (PEM)")
    return PemFile(data, status.st_mode, "" if data.strip() else "is empty: write it anew")


def _advice(error: OSError) -> str:
    if error.errno == errno.EACCES:
        return f"uid {os.geteuid()} may not read it: give that user, or its group, the permission"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return "does not exist: name a file that does"
    if error.errno == errno.EISDIR:
        return "is a directory: name a file (PEM)"
    return f"cannot be read: {error.strerror or error}"


def _chain(data: bytes) -> tuple[Certificate, ...]:
    """The certificates of a file. Raises ValueError, whose text says what is wrong."""
    blocks = pem_blocks(data)
    if not blocks:
        raise ValueError(_no_certificate(data))
    chain: list[Certificate] = []
    for number, block in enumerate(blocks, 1):
        try:
            chain.append(parse(block))
        except Unreadable as error:
            raise ValueError(f"its certificate {number} is broken: {error}") from error
    return tuple(chain)


def _lists(data: bytes) -> tuple[RevocationList, ...]:
    """Of each authority the list that is good longest."""
    longest: dict[str, RevocationList] = {}
    # OpenSSL reads them, too, and has the last word on what is broken.
    with suppress(Unreadable):
        for block in LISTS.blocks(data):
            one = parse_list(block)
            before = longest.setdefault(one.issuer, one)
            if before.next_update < one.next_update:
                longest[one.issuer] = one
    return tuple(longest.values())


def _no_certificate(data: bytes) -> str:
    if b"PRIVATE KEY-----" in data:
        return "holds a private key and no certificate: exchange certificate and key"
    if data[:1] == b"\x30":
        return "is DER: convert it with `openssl x509 -inform DER`"
    return "holds no certificate (PEM): it needs -----BEGIN CERTIFICATE-----"


# Making ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a listener serves with."""

    context: ServerContext
    leaves: tuple[Certificate, ...]
    lists: tuple[RevocationList, ...]
    mark: bytes

    @property
    def not_after(self) -> int:
        """When the first of its certificates expires, in seconds since 1970."""
        return min(leaf.not_after for leaf in self.leaves)

    @property
    def names(self) -> tuple[str, ...]:
        """The names it is for, lower case, wildcards as they are written."""
        return tuple(dict.fromkeys(name for leaf in self.leaves for name in names(leaf)))


def names(leaf: Certificate) -> tuple[str, ...]:
    """The names a certificate is for; its common name counts when it has no alternative names at all."""
    if leaf.dns or leaf.ips or leaf.uris or leaf.emails:
        return tuple(name.lower() for name in leaf.dns)
    return (leaf.common_name.lower(),) if leaf.common_name else ()


class Maker:
    """Makes contexts of one `[certificate NAME]`."""

    def __init__(self, name: str, settings: CertificateSettings, tickets: Tickets) -> None:
        self._name = name
        self._settings = settings
        self._tickets = tickets

    def make(self, found: Found) -> Loaded | Flawed:
        """What serves, or why that cannot be made (blocks)."""
        material = found.material
        if material is None:
            return Flawed(found.mark, found.flaws)
        try:
            return Loaded(self._context(material), material.leaves, material.lists, found.mark)
        except TlsError as error:
            return Flawed(found.mark, (self._flaw(error),))

    def _context(self, material: Material) -> ServerContext:
        own = self._settings
        return ServerContext(
            material.pairs,
            min_version=own.min_version,
            ciphers=own.ciphers,
            client_ca=material.client_ca,
            client_crl=material.client_crl,
            verify_client=own.verify_client,
            tickets=self._tickets,
            identity=self._name.encode(),
        )

    def _flaw(self, error: TlsError) -> Flaw:
        own = self._settings
        key = error.option or "certificate"
        files: tuple[str, ...] = {"certificate": own.certificate, "key": own.key}.get(key, ())
        if files:
            return Flaw(key, files[error.number], str(error))
        return Flaw(key, {"client_ca": own.client_ca, "client_crl": own.client_crl}.get(key, ""), str(error))
