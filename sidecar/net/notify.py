"""Messages to the service manager, as sd_notify(3) sends them.

Law: without a manager nothing is done, and one that does not take a message never holds anything up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gevent import socket
from gevent.lock import Semaphore

_SOCKET: Final = "NOTIFY_SOCKET"
_USEC: Final = "WATCHDOG_USEC"
WATCHDOG_PID: Final = "WATCHDOG_PID"

_LONG_PATIENCE: Final = 20.0  # the same for the word without which it takes the service for dead
_PATIENCE: Final = 1.0  # seconds until a manager that reads nothing is given up for this message
_LONGEST_STATUS: Final = 1000  # characters


class Notify:
    """The line to the manager that `environ` names, for the process `pid`. Messages arrive in their order."""

    def __init__(self, environ: Mapping[str, str], pid: int) -> None:
        self._address = _address(environ.get(_SOCKET, ""))
        self._turn = Semaphore()
        #: Seconds between two calls of `ping`; 0: nobody wants them.
        self.interval = _interval(environ, pid) if self._address else 0.0

    def ready(self, status: str) -> None:
        """It serves, or a reload is over."""
        self._send("READY=1", _status(status))

    def status(self, status: str) -> None:
        """What a person is told, and nothing else."""
        self._send(_status(status))

    def reloading(self, now: float) -> None:
        """A reload begins; `now`: of the monotonic clock, in seconds. `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(now * 1e6)}")

    def stopping(self, seconds: float, status: str) -> None:
        """It ends, and that may take so long."""
        self._send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}", _status(status))

    def ping(self) -> None:
        """It is alive."""
        self._send("WATCHDOG=1")

    def hand_over(self, pid: int) -> None:
        """The service is process `pid` from now on. This one says nothing more."""
        # The new one has its first word when the manager knows it: half an interval after this one at most.
        self._send(f"MAINPID={pid}", "WATCHDOG=1", patience=_LONG_PATIENCE)
        self._address = ""
        self.interval = 0.0

    def _send(self, *lines: str, patience: float = _PATIENCE) -> None:
        if not self._address:
            return
        with self._turn:
            try:
                # Connected, because only then the kernel tells when the other end has room again.
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                    sock.settimeout(patience)
                    sock.connect(self._address)
                    sock.send("\n".join(lines).encode(errors="replace"))
            except OSError:
                return


def _address(text: str) -> str:
    """The address of the socket; empty for none, or for one of a kind that is not spoken here."""
    if text.startswith("@"):
        return f"\0{text[1:]}"
    return text if text.startswith("/") else ""


def _interval(environ: Mapping[str, str], pid: int) -> float:
    owner, usec = environ.get(WATCHDOG_PID, ""), environ.get(_USEC, "")
    if not usec.isascii() or not usec.isdigit() or owner not in ("", str(pid)):
        return 0.0
    return int(usec) / 2e6


def _status(text: str) -> str:
    return f"STATUS={' '.join(text.split())[:_LONGEST_STATUS]}"
