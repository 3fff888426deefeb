"""Programs that tests need beside Python: found, else installed from Debian, else a failure that says why."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Final

#: Where programs of the system are; the PATH of an ordinary user lacks some of them.
_PATH: Final = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
_PATIENCE: Final = 110.0  # seconds for an installation


def program(name: str, *packages: str) -> str:
    """The path of a program; `packages` are the Debian packages that bring it, else the one of its name.

    Raises AssertionError with the reason when it is missing and cannot be installed.
    """
    found = shutil.which(name, path=_PATH)
    if found is None:
        _install(name, packages or (name,))
        found = shutil.which(name, path=_PATH)
    assert found is not None, f"{name} is not in the Debian packages {', '.join(packages or (name,))}"
    return found


def require_root(what: str) -> None:
    """Raises AssertionError when the test does not run as root; `what` needs that."""
    assert os.geteuid() == 0, f"{what} needs root: run the tests as root"


def _install(name: str, packages: tuple[str, ...]) -> None:
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
            timeout=_PATIENCE,
        )
        # A mirror may be down for `update` while what is needed is known already.
        problem = (done.stdout + done.stderr)[-2000:]
        assert arguments == ["update"] or not done.returncode, f"{name} cannot be installed:\n{problem}"
