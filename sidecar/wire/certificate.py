"""What stands in an X.509 certificate: who it is for, who says so, and from when to when.

Law: every text of a `Certificate` is printable ASCII, whatever bytes a stranger had signed; one that went on
into a field value or a log line as it is could break neither. Nothing here judges trust: OpenSSL does.
"""

from __future__ import annotations

from hashlib import sha256
from ipaddress import ip_address
from typing import Final, NamedTuple

from .der import (
    BOOLEAN,
    INTEGER,
    OCTET_STRING,
    OID,
    SEQUENCE,
    SET,
    Der,
    Pem,
    elements,
    identifier,
    signed,
    time,
)
from .octets import Unreadable

_PEM: Final = Pem(rb"(?:X509 )?CERTIFICATE", "certificate")
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

    No such block is an empty list. Raises Unreadable: one has no end or is not base64.
    """
    return _PEM.blocks(data)


def parse(der: bytes) -> Certificate:
    """The certificate that is written in these bytes. Raises Unreadable."""
    body = signed(der)
    body.maybe(_VERSION)
    serial = _serial(body.take(INTEGER))
    body.take(SEQUENCE)  # the algorithm again
    issuer = distinguished_name(body.take(SEQUENCE))
    validity = Der(body.take(SEQUENCE))
    not_before, not_after = time(*validity.next()), time(*validity.next())
    validity.end()
    subject = _name(body.take(SEQUENCE))
    body.take(SEQUENCE)  # the public key
    body.maybe(0x81)  # unique identifiers of the issuer and the subject, which nobody has
    body.maybe(0x82)
    extensions = _extensions(body.maybe(_EXTENSIONS))
    body.end()

    names = _alternative_names(extensions.get(_SUBJECT_ALT_NAME))
    return Certificate(
        subject=_rfc4514(subject),
        issuer=issuer,
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


def _serial(content: bytes) -> str:
    if not content:
        raise Unreadable("the serial number is empty")
    number = int.from_bytes(content, "big", signed=True)
    digits = f"{abs(number):X}"
    return ("-" if number < 0 else "") + digits.zfill(len(digits) + len(digits) % 2)


def _name(content: bytes) -> list[list[tuple[str, str]]]:
    """(type, escaped value) of each value of each part, the most specific part first."""
    parts: list[list[tuple[str, str]]] = []
    count = 0
    for tag, part in elements(content):
        if tag != SET:
            raise Unreadable("a name is not a list of sets")
        values = []
        for inner, pair in elements(part):
            if inner != SEQUENCE:
                raise Unreadable("a part of a name is not a pair")
            values.append(_attribute(Der(pair)))
        count += len(values)
        if not values or count > _MOST_NAMES:
            raise Unreadable("a name has an empty part or too many parts")
        parts.append(values[::-1])
    return parts[::-1]


def _attribute(pair: Der) -> tuple[str, str]:
    oid = identifier(pair.take(OID))
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


def distinguished_name(content: bytes) -> str:
    """A name as an RFC 4514 string, as those of a `Certificate`. Raises Unreadable."""
    return _rfc4514(_name(content))


def _rfc4514(parts: list[list[tuple[str, str]]]) -> str:
    return ",".join("+".join(f"{kind}={text}" for kind, text in values) for values in parts)


def _extensions(content: bytes | None) -> dict[str, bytes]:
    """Values by object identifier."""
    if content is None:
        return {}
    outer = Der(content)
    found: dict[str, bytes] = {}
    for tag, extension in elements(outer.take(SEQUENCE)):
        if tag != SEQUENCE:
            raise Unreadable("an extension is not a sequence")
        reader = Der(extension)
        oid = identifier(reader.take(OID))
        reader.maybe(BOOLEAN)  # whether it is critical
        if oid in found:
            raise Unreadable(f"it has the extension {oid} twice")
        found[oid] = reader.take(OCTET_STRING)
        reader.end()
    outer.end()
    return found


def _alternative_names(value: bytes | None) -> dict[int, list[str]]:
    """Texts by tag. Other kinds, such as otherName and directoryName, are skipped."""
    names: dict[int, list[str]] = {_EMAIL: [], _DNS: [], _URI: [], _IP: []}
    if value is None:
        return names
    outer = Der(value)
    for count, (tag, content) in enumerate(elements(outer.take(SEQUENCE))):
        if count >= _MOST_NAMES:
            raise Unreadable("it has too many alternative names")
        if tag == _IP:
            if len(content) not in (4, 16):
                raise Unreadable("an alternative name is an address of neither 4 nor 16 bytes")
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
    outer = Der(value)
    constraints = Der(outer.take(SEQUENCE))
    outer.end()
    return constraints.maybe(BOOLEAN) == b"\xff"
