"""The one-file binary for tests: where it is, and places that suit it or not."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]

#: What the launcher calls the directory it unpacks into.
UNPACKED: Final = "sidecar-" + "[0-9a-f]" * 16


def binary() -> Path:
    """The executable. Fails with what to do when it is missing."""
    path = ROOT / "dist" / "sidecar"
    assert path.exists(), f"{path} is missing: run make binary"
    return path


def namespace(
    script: str, *, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `script` by a shell as process 1 of namespaces of its own: processes, mounts and network.

    Mounts that it makes are seen by nobody else and go with it; its loopback is up and empty.
    """
    assert os.geteuid() == 0, "namespaces and mounts take root: run the tests as root"
    return subprocess.run(
        [
            "unshare",
            "--pid",
            "--mount",
            "--net",
            "--fork",
            "--mount-proc",
            "sh",
            "-eu",
            "-c",
            f"ip link set lo up\n{script}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **(environment or {})},
    )


def run(
    *arguments: str, environment: Mapping[str, str] | None = None, within: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the binary to its end; `within`: a command to run it by."""
    return subprocess.run(
        [*within, str(binary()), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **(environment or {})},
    )
