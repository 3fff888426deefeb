"""When Python looks for garbage: while it does, no greenlet runs.

Laws. What a configuration is made of stays for long, and reference counts free it when another takes its
place: nobody looks through it again and again. What connections are made of has few cycles: the young are
looked through often, which takes a fraction of a millisecond, those that stayed seldom, which takes tens.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

#: New objects until one look through them, such looks until one through those that stayed, and of these until
#: one through everything that is not set aside.
_THRESHOLDS: Final = (2000, 10, 10)
#: Objects are set aside at each load, and so are cycles that somebody still uses: at so many times the number
#: of the last look there is another.
_GROWTH: Final = 2

#: Objects that were set aside by the last `settle`.
_settled = 0


def settle() -> None:
    """Look through everything, and set aside what is there."""
    global _settled
    gc.set_threshold(*_THRESHOLDS)
    gc.unfreeze()
    gc.collect()
    _set_aside()
    _settled = gc.get_freeze_count()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Look for nothing while something is made that stays, then set it aside.

    With ten thousand routes one look at everything stops all greenlets for a fifth of a second.
    """
    gc.disable()
    try:
        yield
    finally:
        _set_aside()
        if _settled and gc.get_freeze_count() > _GROWTH * _settled:
            settle()
        gc.enable()


def _set_aside() -> None:
    gc.freeze()
    # There is nothing left to look through, and it learns that: it waits for a quarter more than there was.
    gc.collect()
