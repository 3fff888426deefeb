"""Expands `${NAME}`, `${NAME:-default}` and `$$` in values, and remembers which variables were asked for.

Law: what a variable holds is never expanded again. A `$` before anything but `{` and `$` is itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from .schema import quoted

_DOLLAR: Final = re.compile(r"\$(?:\$|\{((?:[^{}]|\{[^{}]*\})*)\}|(\{))")
_VARIABLE: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_UNFIT: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Environment:
    """The variables of one load."""

    __slots__ = ("_variables", "used")

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self.used: dict[str, str | None] = {}  # every name that was asked for; None when it is not set

    def expand(self, text: str) -> str:
        """`text` with its variables replaced. Raises ValueError with advice."""
        return _DOLLAR.sub(self._replace, text).strip() if "$" in text else text

    def _replace(self, found: re.Match[str]) -> str:
        if found[2]:
            raise ValueError("'${' has no '}': write ${NAME} or ${NAME:-default}, or $${ for the characters")
        return "$" if found[1] is None else self._value(found[1])

    def _value(self, inside: str) -> str:
        parts = _VARIABLE.fullmatch(inside)
        if parts is None:
            raise ValueError(
                f"{quoted('${' + inside + '}')} is not a variable: write ${{NAME}} or ${{NAME:-default}}"
            )
        name, default = parts[1], parts[2]
        value = self.used[name] = self._variables.get(name)
        if value is None and default is None:
            raise ValueError(f"the variable {name} is not set: set it, or write ${{{name}:-default}}")
        if not value and default is not None:
            return default
        if _UNFIT.search(value or ""):
            raise ValueError(f"the variable {name} holds a control character or is not UTF-8: clean it")
        return value or ""


def escape(text: str) -> str:
    """The text that `expand` turns into `text`."""
    return text.replace("$", "$$")
