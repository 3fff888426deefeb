"""The head of an HTTP/1.1 message (RFC 9112): strict, one pass, offsets instead of objects."""

from typing import Final, Self

NONE: Final[int]  # framings: no body,
LENGTH: Final[int]  # Content-Length,
CHUNKED: Final[int]  # Transfer-Encoding: chunked,
CLOSE: Final[int]  # until the connection ends (responses only)

class Limits:
    """Bounds of one head. Bytes, fields, bytes."""

    max_header_size: (
        int  # of the whole section, request or status line included → 431 header_section_too_large
    )
    max_headers: int  # number of field lines → 431 too_many_fields
    max_target_size: int  # of the request target → 414 target_too_long
    def __init__(
        self, max_header_size: int = 32768, max_headers: int = 100, max_target_size: int = 8192
    ) -> None: ...

class Names:
    """A compiled set of field names to leave out when a head is rendered.

    Case does not matter, and where the set has "-" a field with "_" is left out too: applications behind CGI
    or WSGI cannot tell X_User from X-User.
    """

    names: tuple[bytes, ...]  # in lower case
    def __init__(self, names: list[bytes] | tuple[bytes, ...]) -> None: ...
    def __or__(self, other: Names) -> Names: ...
    def __contains__(self, name: bytes) -> bool: ...

class Head:
    """What requests and responses share. Values are read from `raw` only when somebody asks."""

    version: int  # 10 or 11
    framing: int  # NONE, LENGTH, CHUNKED or CLOSE
    length: int  # bytes of the body when framing is LENGTH, else 0
    has_date: bool
    keep_alive: bool  # whether the sender will reuse the connection after this message
    @property
    def raw(self) -> bytes: ...  # the section as it came, first line to empty line
    def feed(self, data: bytes) -> int:
        """Take the bytes received so far, always from the message's first byte on.

        Returns how many bytes the head takes (then it is complete), or 0 when more are needed.
        Raises Malformed: for the first byte and the size at once, for everything else when the line is there.
        ValueError: it is complete already, or `data` is shorter than before.
        """
    def get(self, name: bytes) -> bytes | None: ...  # the first value; the name in any case
    def get_all(self, name: bytes) -> list[bytes]: ...
    def fields(self) -> list[tuple[bytes, bytes]]: ...  # in order, duplicates kept, names as sent

class RequestHead(Head):
    """A request's head."""

    def __init__(self, limits: Limits) -> None: ...
    expect_continue: bool
    method: bytes
    @property
    def target(self) -> bytes: ...  # as sent
    @property
    def origin(
        self,
    ) -> bytes: ...  # the target in origin-form: path and query, byte for byte ("*" for OPTIONS *)
    @property
    def path(self) -> bytes: ...  # origin without the query
    def normal(self) -> str | None:
        """The path as `target.normal_path` makes it, if it is that already; None: it needs work."""
    @property
    def query(self) -> bytes: ...  # without "?", empty when absent
    @property
    def authority(
        self,
    ) -> (
        bytes
    ): ...  # of an absolute-form target, else the Host field; as sent; b"" before the head is complete
    @property
    def host(self) -> str: ...  # of the authority: lower case, no port, no trailing dot; "" when absent
    @property
    def port(self) -> int | None: ...  # of the authority
    @property
    def upgrade(self) -> bytes | None: ...  # value of Upgrade if Connection names it, 1.1 only, never h2c
    def render(
        self,
        target: bytes | None = None,  # None: `origin`
        host: bytes | None = None,  # None: `authority` (the Host line is left out when that is empty)
        drop: Names | None = None,  # fields the route sets or removes
        extra: bytes = b"",  # complete field lines ("Name: value\r\n…") put at the end
        upgrade: bool = False,  # pass Upgrade on, with "Connection: upgrade"
        framing: int = -1,  # -1: as received; LENGTH with `length` when the body was buffered
        length: int = 0,
        expect: bool = True,  # pass Expect on
    ) -> bytes:
        """The head to send upstream, HTTP/1.1; `target`, `host` and `extra` are trusted.

        Left out: hop-by-hop fields and all Connection names (RFC 9110 section 7.6.1), and the forwarding
        fields (X-Forwarded-For/-Host/-Port/-Proto, X-Real-IP, also when spelled with underscores), which
        `extra` sets anew.
        """

class ResponseHead(Head):
    """A response's head."""

    def __init__(self, limits: Limits, request_method: bytes = b"GET") -> None: ...
    status: int
    @property
    def reason(self) -> bytes: ...
    @property
    def upgrade(self) -> bytes | None: ...
    @classmethod
    def make(
        cls,
        status: int,
        fields: list[tuple[bytes, bytes]],
        *,
        length: int = -1,
        request_method: bytes = b"GET",
    ) -> Self:
        """A response of the proxy itself; `length` ≥ 0 adds Content-Length. Raises Malformed: a bad field."""
    def render(
        self,
        framing: int,  # how the body will be sent: NONE, LENGTH, CHUNKED or CLOSE
        keep_alive: bool,  # False: "Connection: close"
        client_version: int = 11,  # to 10 with keep_alive: "Connection: keep-alive"
        drop: Names | None = None,
        extra: bytes = b"",
        upgrade: bool = False,
    ) -> bytes:
        """The head to send to the client, always HTTP/1.1; hop-by-hop fields left out.

        With LENGTH, and for answers to HEAD and 304, Content-Length stays as received; it is left out with
        CHUNKED and CLOSE and on 1xx and 204.
        """
