"""Flows move bodies from one channel to another, in pieces of its buffer and framed anew."""

from typing import Final

from ..errors import SidecarError
from .channel import Channel

FINISHED: Final[int]
STOPPED: Final[int]

class Flow:
    """A body on its way from one channel to another, framed anew. Moves only when pumped.

    `keep`: bytes of it that are kept as they pass, so that it can be sent again; -1: none.
    """

    source: Channel
    sink: Channel
    done: bool
    broken: SidecarError | None
    moved: int  # bytes of the body, framing excluded
    half_close: bool
    def __init__(
        self,
        source: Channel,
        sink: Channel,
        framing_in: int,
        length: int,
        framing_out: int,
        read_timeout: float,
        write_timeout: float,
        limit: int = -1,
        keep: int = -1,
    ) -> None: ...
    @property
    def whole(self) -> bool: ...  # all of the body is still to be had
    @property
    def kept(self) -> bytes | None: ...  # what was read of the body, if it was kept
    @property
    def content(self) -> bytes | None: ...  # the whole body, when all of it was read and kept
    def forget(self) -> None: ...  # keep no more
    def again(self, sink: Channel, framing_out: int, write_timeout: float) -> None:
        """Begin anew, to another sink; only with what was kept."""

def pump(
    a: Flow,
    b: Flow | None = None,
    stop: Channel | None = None,
    watch: Channel | None = None,
    lead: bool = False,
    idle: float = 0,
    until: float = 0,
) -> int: ...
