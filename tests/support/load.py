"""Clients that ask an echo server through the sidecar, in threads of this process, until it is enough."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator

from tests.support import echo_server


@contextlib.contextmanager
def echo() -> Iterator[int]:
    """The port of an `echo_server`."""
    process = subprocess.Popen([sys.executable, echo_server.__file__], stdout=subprocess.PIPE)
    assert process.stdout
    try:
        with process.stdout:
            yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


class Load(ABC):
    """It runs from `start` to `stop`."""

    def __init__(self, clients: int) -> None:
        self._counts = [0] * clients
        self._enough = threading.Event()
        self.errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(clients)
        ]

    @abstractmethod
    def _connection(self, number: int) -> Iterator[None]:
        """Take a connection and ask on it, with a yield after each right answer. Raises: a wrong one."""

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    @property
    def done(self) -> int:
        """Requests that were answered with the right bytes."""
        return sum(self._counts)

    def stop(self) -> None:
        """End each client after its request."""
        self._enough.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive(), "a request never ended"

    def _run(self, number: int) -> None:
        while not self._enough.is_set():
            try:
                with contextlib.closing(self._connection(number)) as answers:
                    for _ in answers:
                        self._counts[number] += 1
                        if self._enough.is_set():
                            return
            except Exception as error:  # noqa: BLE001 - counted; the test tells them
                self.errors.append(f"{type(error).__name__}: {error}")
