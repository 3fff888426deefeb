"""The command under test. Whatever starts a sidecar asks here, so that one option changes it for all.

`pytest --command dist/sidecar` tests the binary; without the option it is the command that users have
installed, beside the Python that runs the tests.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
INSTALLED: Final = Path(sys.executable).with_name("sidecar")

_chosen = [str(INSTALLED)]


def choose(words: str) -> None:
    """Test this command from now on: words of a shell; a relative path is one of the checkout.

    Raises LookupError, with what to do, when there is no such command.
    """
    command = shlex.split(words)
    if not command:
        raise LookupError("--command is empty: name a command, like --command dist/sidecar")
    if "/" in command[0]:
        command[0] = os.path.join(ROOT, command[0])
    if reason := _problem(command):
        raise LookupError(reason)
    _chosen[:] = command


def command() -> list[str]:
    """What starts the sidecar under test, without its arguments. Fails with what to do when it is missing."""
    if reason := _problem(_chosen):
        raise AssertionError(reason)
    return list(_chosen)


def told() -> str:
    """The command for a person: paths of the checkout are relative to it."""
    return shlex.join(word.removeprefix(f"{ROOT}/") for word in _chosen)


def _problem(command: list[str]) -> str:
    if shutil.which(command[0]):
        return ""
    target = "make binary" if Path(command[0]).parent == ROOT / "dist" else "make build"
    return f"{command[0]} is not an executable: run {target}"
