"""What stands in an X.509 certificate: who it is for, who says so, and from when to when.

Law: every text of a `Certificate` is printable ASCII, whatever bytes a stranger had signed; one that went on
into a field value or a log line as it is could break neither. Nothing here judges trust: OpenSSL does.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from ipaddress import ip_address
from typing import Final, NamedTuple

# Tags of ASN.1 (X.690); the bits of a constructed and of a context-specific one are part of the byte.
_BOOLEAN, _INTEGER, _BIT_STRING, _OCTET_STRING, _OID = 0x01, 0x02, 0x03, 0x04, 0x06
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_SEQUENCE, _SET = 0x30, 0x31
_VERSION, _EXTENSIONS = 0xA0, 0xA3  # of a TBSCertificate
_EMAIL, _DNS, _URI, _IP = 0x81, 0x82, 0x86, 0x87  # of a GeneralName

#: Tag of a string → its codec. T61String is read as Latin-1, as OpenSSL and everybody else does.
_STRINGS: Final = {
    0x0C: "utf-8",
    0x12: "ascii",  # NumericString
    0x13: "ascii",  # PrintableString
    0x14: "latin-1",
    0x16: "ascii",  # IA5String
    0x1A: "ascii",  # VisibleString
    0x1C: "utf-32-be",
    0x1E: "utf-16-be",
}
_LONGEST_OID: Final = 64  # bytes; an arc that holds a UUID takes 19
_MOST_NAMES: Final = 1024  # of a subject's parts or alternative names; each may cost a field or a comparison
_SUBJECT_ALT_NAME: Final = "2.5.29.17"
_BASIC_CONSTRAINTS: Final = "2.5.29.19"
#: Attribute types with a short name, as OpenSSL writes them; the first nine are those of RFC 4514.
_TYPES: Final = {
    "2.5.4.3": "CN",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.6": "C",
    "2.5.4.9": "street",
    "0.9.2342.19200300.100.1.25": "DC",
    "0.9.2342.19200300.100.1.1": "UID",
    "1.2.840.113549.1.9.1": "emailAddress",
    "1.2.840.113549.1.9.2": "unstructuredName",
    "2.5.4.4": "SN",
    "2.5.4.5": "serialNumber",
    "2.5.4.12": "title",
    "2.5.4.13": "description",
    "2.5.4.15": "businessCategory",
    "2.5.4.16": "postalAddress",
    "2.5.4.17": "postalCode",
    "2.5.4.20": "telephoneNumber",
    "2.5.4.41": "name",
    "2.5.4.42": "GN",
    "2.5.4.43": "initials",
    "2.5.4.44": "generationQualifier",
    "2.5.4.45": "x500UniqueIdentifier",
    "2.5.4.46": "dnQualifier",
    "2.5.4.65": "pseudonym",
    "2.5.4.97": "organizationIdentifier",
    "1.3.6.1.4.1.311.60.2.1.1": "jurisdictionL",
    "1.3.6.1.4.1.311.60.2.1.2": "jurisdictionST",
    "1.3.6.1.4.1.311.60.2.1.3": "jurisdictionC",
}
_SPECIAL: Final = frozenset(b'"+,;<>\\')  # RFC 4514 section 2.4
_PEM: Final = re.compile(
    rb"-----BEGIN (?:X509 )?CERTIFICATE-----(.*?)-----END (?:X509 )?CERTIFICATE-----|"
    rb"-----BEGIN (?:X509 )?CERTIFICATE-----",
    re.DOTALL,
)
_BLANKS: Final = b" \t\r\n"
_UTC: Final = re.compile(rb"(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z")
_GENERALIZED: Final = re.compile(rb"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z")


class NotACertificate(ValueError):
    """The bytes are no certificate; the message says in a sentence what is wrong."""


class Certificate(NamedTuple):
    """What is read of one. Names are RFC 4514 strings, the most specific part first, as OpenSSL's RFC2253.

    What is not printable ASCII stands as `\\XX`, byte by byte of its UTF-8; in an alternative name blanks,
    quotes and backslashes too. Times are seconds since 1970.
    """

    subject: str
    issuer: str
    common_name: str  # the most specific one of the subject, escaped as there; "" when there is none
    dns: tuple[str, ...]
    uris: tuple[str, ...]
    ips: tuple[str, ...]
    emails: tuple[str, ...]
    not_before: int
    not_after: int
    serial: str  # hexadecimal, two upper case digits a byte
    sha256: str  # of the whole certificate, hexadecimal, lower case
    is_ca: bool


def pem_blocks(data: bytes) -> list[bytes]:
    """The DER of each CERTIFICATE block, in order; other blocks and what stands around are skipped.

    No such block is an empty list. Raises NotACertificate: one has no end or is not base64.
    """
    blocks = []
    for number, match in enumerate(_PEM.finditer(data), 1):
        text = match[1]
        if text is None:
            raise NotACertificate(f"certificate {number} of the file has no END line")
        try:
            blocks.append(binascii.a2b_base64(text.translate(None, _BLANKS), strict_mode=True))
        except binascii.Error as error:
            raise NotACertificate(f"certificate {number} of the file is not base64") from error
    return blocks


def parse(der: bytes) -> Certificate:
    """The certificate that is written in these bytes. Raises NotACertificate."""
    whole = _Reader(der)
    certificate = _Reader(whole.take(_SEQUENCE))
    whole.end()
    body = _Reader(certificate.take(_SEQUENCE))
    certificate.take(_SEQUENCE)  # the algorithm
    certificate.take(_BIT_STRING)  # the signature
    certificate.end()

    body.maybe(_VERSION)
    serial = _serial(body.take(_INTEGER))
    body.take(_SEQUENCE)  # the algorithm again
    issuer = _name(body.take(_SEQUENCE))
    validity = _Reader(body.take(_SEQUENCE))
    not_before, not_after = _time(*validity.next()), _time(*validity.next())
    validity.end()
    subject = _name(body.take(_SEQUENCE))
    body.take(_SEQUENCE)  # the public key
    body.maybe(0x81)  # unique identifiers of the issuer and the subject, which nobody has
    body.maybe(0x82)
    extensions = _extensions(body.maybe(_EXTENSIONS))
    body.end()

    names = _alternative_names(extensions.get(_SUBJECT_ALT_NAME))
    return Certificate(
        subject=_rfc4514(subject),
        issuer=_rfc4514(issuer),
        common_name=next((text for parts in subject for kind, text in parts if kind == "CN"), ""),
        dns=tuple(names[_DNS]),
        uris=tuple(names[_URI]),
        ips=tuple(names[_IP]),
        emails=tuple(names[_EMAIL]),
        not_before=not_before,
        not_after=not_after,
        serial=serial,
        sha256=sha256(der).hexdigest(),
        is_ca=_is_ca(extensions.get(_BASIC_CONSTRAINTS)),
    )


class _Reader:
    """The elements of a constructed one, in order. DER: one way to write a length, and it has an end."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def is_done(self) -> bool:
        """Whether nothing is left."""
        return self._at == len(self._data)

    def end(self) -> None:
        """Nothing may be left."""
        if not self.is_done():
            raise NotACertificate("there are bytes behind the end of an element")

    def next(self) -> tuple[int, bytes]:
        """Tag and content of the next element."""
        data, at = self._data, self._at
        if at + 2 > len(data):
            raise NotACertificate("it ends in the middle of an element")
        tag, length = data[at], data[at + 1]
        at += 2
        if tag & 0x1F == 0x1F:
            raise NotACertificate("it has a tag of several bytes")
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[at : at + size], "big")
            if not 1 <= size <= 4 or length < 0x80 or length >> 8 * (size - 1) == 0:
                raise NotACertificate("a length is not written as DER demands")
            at += size
        end = at + length
        if end > len(data):
            raise NotACertificate("it ends in the middle of an element")
        self._at = end
        return tag, data[at:end]

    def take(self, tag: int) -> bytes:
        """Content of the next element, which must have this tag."""
        found, content = self.next()
        if found != tag:
            raise NotACertificate(f"there is an element of tag {found:#04x} where {tag:#04x} belongs")
        return content

    def maybe(self, tag: int) -> bytes | None:
        """Content of the next element if it has this tag, else None."""
        if self._at < len(self._data) and self._data[self._at] == tag:
            return self.next()[1]
        return None


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    reader = _Reader(data)
    while not reader.is_done():
        yield reader.next()


def _oid(content: bytes) -> str:
    """`2.5.4.3`."""
    if not content or len(content) > _LONGEST_OID or content[-1] & 0x80:
        raise NotACertificate("an object identifier is broken or too long")
    arcs, arc, is_begun = [], 0, False
    for byte in content:
        if byte == 0x80 and not is_begun:
            raise NotACertificate("an object identifier is not written as DER demands")
        arc = arc << 7 | byte & 0x7F
        is_begun = bool(byte & 0x80)
        if not is_begun:
            arcs.append(arc)
            arc = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


def _serial(content: bytes) -> str:
    if not content:
        raise NotACertificate("the serial number is empty")
    number = int.from_bytes(content, "big", signed=True)
    digits = f"{abs(number):X}"
    return ("-" if number < 0 else "") + digits.zfill(len(digits) + len(digits) % 2)


def _time(tag: int, content: bytes) -> int:
    """Seconds since 1970."""
    form = {_UTC_TIME: _UTC, _GENERALIZED_TIME: _GENERALIZED}.get(tag)
    match = form.fullmatch(content) if form is not None else None
    if match is None:
        raise NotACertificate("a time of the validity is not written as RFC 5280 demands")
    year, month, day, hour, minute, second = map(int, match.groups())
    if tag == _UTC_TIME:
        year += 1900 if year >= 50 else 2000
    try:
        return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp())
    except ValueError as error:
        raise NotACertificate("a time of the validity does not exist") from error


def _name(content: bytes) -> list[list[tuple[str, str]]]:
    """(type, escaped value) of each value of each part, the most specific part first."""
    parts: list[list[tuple[str, str]]] = []
    count = 0
    for tag, part in _elements(content):
        if tag != _SET:
            raise NotACertificate("a name is not a list of sets")
        values = []
        for inner, pair in _elements(part):
            if inner != _SEQUENCE:
                raise NotACertificate("a part of a name is not a pair")
            values.append(_attribute(_Reader(pair)))
        count += len(values)
        if not values or count > _MOST_NAMES:
            raise NotACertificate("a name has an empty part or too many parts")
        parts.append(values[::-1])
    return parts[::-1]


def _attribute(pair: _Reader) -> tuple[str, str]:
    oid = _oid(pair.take(_OID))
    tag, content = pair.next()
    pair.end()
    kind = _TYPES.get(oid)
    text = _string(tag, content) if kind is not None else None
    if kind is None or text is None:
        # RFC 4514 section 2.4: what is no known string stands as its encoding. A string's own "#" is escaped.
        return kind or oid, f"#{_encoded(tag, content).hex().upper()}"
    return kind, _escaped(text)


def _string(tag: int, content: bytes) -> str | None:
    codec = _STRINGS.get(tag)
    try:
        return content.decode(codec) if codec is not None else None
    except UnicodeDecodeError:
        return None


def _encoded(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def _escaped(text: str) -> str:
    """As an attribute value of RFC 4514."""
    data = text.encode("utf-8")
    last = len(data) - 1
    escaped = []
    for at, byte in enumerate(data):
        is_edge = (byte == 0x20 and at in (0, last)) or (byte == 0x23 and at == 0)
        if byte in _SPECIAL or is_edge:
            escaped.append(f"\\{chr(byte)}")
        elif 0x20 <= byte < 0x7F:
            escaped.append(chr(byte))
        else:
            escaped.append(f"\\{byte:02X}")
    return "".join(escaped)


def _rfc4514(parts: list[list[tuple[str, str]]]) -> str:
    return ",".join("+".join(f"{kind}={text}" for kind, text in values) for values in parts)


def _extensions(content: bytes | None) -> dict[str, bytes]:
    """Values by object identifier."""
    if content is None:
        return {}
    outer = _Reader(content)
    found: dict[str, bytes] = {}
    for tag, extension in _elements(outer.take(_SEQUENCE)):
        if tag != _SEQUENCE:
            raise NotACertificate("an extension is not a sequence")
        reader = _Reader(extension)
        oid = _oid(reader.take(_OID))
        reader.maybe(_BOOLEAN)  # whether it is critical
        if oid in found:
            raise NotACertificate(f"it has the extension {oid} twice")
        found[oid] = reader.take(_OCTET_STRING)
        reader.end()
    outer.end()
    return found


def _alternative_names(value: bytes | None) -> dict[int, list[str]]:
    """Texts by tag. Other kinds, such as otherName and directoryName, are skipped."""
    names: dict[int, list[str]] = {_EMAIL: [], _DNS: [], _URI: [], _IP: []}
    if value is None:
        return names
    outer = _Reader(value)
    for count, (tag, content) in enumerate(_elements(outer.take(_SEQUENCE))):
        if count >= _MOST_NAMES:
            raise NotACertificate("it has too many alternative names")
        if tag == _IP:
            if len(content) not in (4, 16):
                raise NotACertificate("an alternative name is an address of neither 4 nor 16 bytes")
            names[_IP].append(str(ip_address(content)))
        elif tag in names:
            names[tag].append(_printable(content))
    outer.end()
    return names


def _printable(content: bytes) -> str:
    return "".join(
        [chr(byte) if 0x20 < byte < 0x7F and byte not in b'"\\' else f"\\{byte:02X}" for byte in content]
    )


def _is_ca(value: bytes | None) -> bool:
    if value is None:
        return False
    outer = _Reader(value)
    constraints = _Reader(outer.take(_SEQUENCE))
    outer.end()
    return constraints.maybe(_BOOLEAN) == b"\xff"
