"""Header compression of HTTP/2 (RFC 7541). The connections use the C side, hpack.pxd; this is for tests."""

from collections.abc import Iterable
from typing import Final

HOW: Final[dict[str, int]]  # how a field is coded: "index", "plain", "never", "auto"; see hpack.pxd

class FieldSink:
    """What takes the fields of a block, one after the other; in C only."""

class Decoder:
    """The blocks of one connection, in order.

    Rules raised as Malformed, always the end of the connection (COMPRESSION_ERROR): hpack_truncated,
    hpack_integer_too_large (above 2^31 - 1, or more than 5 bytes behind its prefix), hpack_index (0, or
    beyond both tables), hpack_huffman (EOS, or padding that is long or not all ones), hpack_size_update
    (too large, the third of a block, behind a field, or missing after `set_table_size`).
    """

    def __init__(self, table_size: int = 4096) -> None: ...  # bytes, in force from the first block on
    def set_table_size(self, size: int) -> None:
        """SETTINGS_HEADER_TABLE_SIZE as we announced it, in bytes.

        A larger one counts when it is sent, a smaller one when it is acknowledged: the next block must then
        begin with a size update, as RFC 7541 section 4.2 wants it. ValueError: not between 0 and 2^31 - 1.
        """
    def feed(self, block: bytes) -> list[tuple[bytes, bytes, bool]]:
        """(name, value, whether no hop may index it) of every field of a whole block."""

class Encoder:
    """The blocks of one connection, in order; names are sent in lower case."""

    def __init__(self, table_size: int = 4096) -> None: ...  # bytes at most; never more than 4096
    def set_table_size(self, size: int) -> None:
        """The peer's SETTINGS_HEADER_TABLE_SIZE, in bytes; the next block tells what became of it."""
    def add(self, fields: Iterable[tuple[bytes, bytes]], how: int = ...) -> bytes:
        """A whole block. ValueError: `how` is not a value of HOW."""
