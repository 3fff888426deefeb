"""Octets: read from the front, and never beyond their end."""

from __future__ import annotations

import pytest

from sidecar.wire.octets import Octets, Unreadable


def test_bytes_and_numbers_come_in_order() -> None:
    octets = Octets(b"ab\x01\x02c")
    assert (octets.read(2), octets.number(2), octets.is_done()) == (b"ab", 0x0102, False)
    assert (octets.read(0), octets.read(1), octets.is_done()) == (b"", b"c", True)


@pytest.mark.parametrize("size", [1, 2, 1 << 40])
def test_nothing_is_read_beyond_the_end(size: int) -> None:
    octets = Octets(b"")
    for read in (octets.read, octets.number):
        with pytest.raises(Unreadable, match="ends in the middle"):
            read(size)
    assert octets.is_done()
