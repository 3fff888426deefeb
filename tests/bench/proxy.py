"""What a proxy is for the benchmark: an executable, what it can do, and how it is configured and started."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .certificate import Certificate
from .process import BenchError
from .rows import PLAIN, Wire

#: Idle connections to the upstream that each proxy may keep.
KEEPALIVE = 64
#: Client connections that each proxy admits: the default of sidecar.
MAX_CONNECTIONS = 10_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where one proxy runs: its own folder, its port, the port of the upstream, and what is spoken on both.

    The upstream speaks TLS on its port when `wire.upstream_tls` says so.
    """

    folder: Path
    port: int
    upstream: int
    certificate: Certificate
    wire: Wire = PLAIN

    @property
    def access_log(self) -> Path:
        """The file of the access log, unless the proxy logs to its output."""
        return self.folder / "access.log"

    def write(self, name: str, text: str) -> str:
        """Write a file into the folder and return its path."""
        path = self.folder / name
        path.write_text(text)
        return str(path)


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a proxy: the command, what it adds to the environment, and where it logs."""

    command: list[str]
    access_log: Path
    environment: Mapping[str, str] = field(default_factory=dict)


def find(name: str) -> Path | None:
    """An executable beside this interpreter, on the path, or where a distribution puts servers."""
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"]
    found = shutil.which(name, path=os.pathsep.join(folders))
    return Path(found) if found else None


class Proxy(ABC):
    """A proxy that can be measured."""

    name: str
    version_option = "--version"

    def binary(self) -> Path | None:
        """The executable, or None if the proxy is not installed."""
        return find(self.name)

    def executable(self) -> str:
        """The path of the executable.

        Raises `BenchError` if the proxy is not installed.
        """
        found = self.binary()
        if found is None:
            raise BenchError(f"{self.name} is not installed")
        return str(found)

    def told(self, option: str) -> str:
        """What the executable says about itself, asked by `option`."""
        command = [self.executable(), option]
        told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        return told.stdout + told.stderr

    def version(self) -> str:
        """The version as the executable tells it, or `?`."""
        number = re.search(r"\d+\.\d+[\w.+-]*", self.told(self.version_option))
        return number.group() if number else "?"

    def unable(self, wire: Wire) -> str | None:
        """Why this build of the proxy cannot speak `wire`; None: it can."""
        return None

    def launch_bare(self, place: Place) -> Launch | None:
        """The same for a configuration that answers 200 by itself; None: its start is not measured."""
        return None

    @abstractmethod
    def launch(self, place: Place) -> Launch:
        """Write the configuration into the folder of `place` and say how to start."""
