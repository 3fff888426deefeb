"""Where the sidecar differs from nginx on purpose: case, aspect, what each of them does, and why."""

from __future__ import annotations

from typing import NamedTuple


class Difference(NamedTuple):
    """One aspect of a case; None where it has no value."""

    aspect: str
    nginx: object
    sidecar: object
    why: str


DIFFERENCES: dict[str, tuple[Difference, ...]] = {}
