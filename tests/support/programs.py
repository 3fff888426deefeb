"""Programs that tests need beside Python: found, else installed from Debian, else a failure that says why."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

#: Where programs of the system are; the PATH of an ordinary user lacks some of them.
_PATH: Final = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
_PATIENCE: Final = 110.0  # seconds for an installation


def program(name: str, *packages: str, patience: float = _PATIENCE) -> str:
    """The path of a program; `packages` are the Debian packages that bring it, else the one of its name.

    `patience`: seconds for an installation; a test that needs more has to have a longer timeout.
    Raises AssertionError with the reason when it is missing and cannot be installed.
    """
    found = shutil.which(name, path=_PATH)
    if found is None:
        with one_at_a_time():
            if shutil.which(name, path=_PATH) is None:
                _install(name, packages or (name,), patience)
        found = shutil.which(name, path=_PATH)
    assert found is not None, f"{name} is not in the Debian packages {', '.join(packages or (name,))}"
    return found


def require_root(what: str) -> None:
    """Raises AssertionError when the test does not run as root; `what` needs that."""
    assert os.geteuid() == 0, f"{what} needs root: run the tests as root"


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Of all processes that run this suite together one is here, the others wait. Not to be nested."""
    with open(__file__) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install(name: str, packages: tuple[str, ...], patience: float) -> None:
    wanted = " ".join(packages)
    apt = shutil.which("apt-get", path=_PATH)
    assert apt is not None, f"{name} is missing and there is no apt-get: install what Debian calls {wanted}"
    assert os.geteuid() == 0, f"{name} is missing: run `apt-get install {wanted}` as root"
    command = [apt, "-o", "DPkg::Lock::Timeout=60", "--yes", "--quiet", "--no-install-recommends"]
    for arguments in (["update"], ["install", *packages]):
        done = subprocess.run(
            [*command, *arguments],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=patience,
        )
        # A mirror may be down for `update` while what is needed is known already.
        problem = (done.stdout + done.stderr)[-2000:]
        assert arguments == ["update"] or not done.returncode, f"{name} cannot be installed:\n{problem}"
