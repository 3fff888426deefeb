"""Clients that ask one URL again and again and count what goes wrong; half of them keep their connection.

    traffic.py PORT PATH LEAST

They go on until standard input ends and at least LEAST requests were answered, or until much has gone wrong.
A line with the number of answers is printed now and then, and last a JSON object: `answered`, `connections`,
`errors`.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import threading
from collections.abc import Callable

_CLIENTS = 6
_PATIENCE = 10.0  # seconds for one answer
_TOLD_EVERY = 250
_TOO_MANY = 20  # errors


class Tally:
    """What all clients have seen so far."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.answered = 0
        self.connections = 0
        self.errors: list[str] = []

    def count(self, error: str) -> None:
        """Count an exchange; `error` is empty when it was answered as it must be."""
        with self._lock:
            if error:
                self.errors.append(error)
                return
            self.answered += 1
            if self.answered % _TOLD_EVERY == 0:
                print(self.answered, flush=True)

    def connected(self) -> None:
        """Count a connection."""
        with self._lock:
            self.connections += 1


class Counted(http.client.HTTPConnection):
    """A connection that tells when it connects, which it does anew after `Connection: close`."""

    def __init__(self, port: int, when: Callable[[], None]) -> None:
        super().__init__("127.0.0.1", port, timeout=_PATIENCE)
        self._when = when

    def connect(self) -> None:
        self._when()
        super().connect()


def ask(connection: http.client.HTTPConnection, path: str, keeps: bool) -> str:
    """One exchange; what went wrong."""
    try:
        connection.request("GET", path, headers={} if keeps else {"Connection": "close"})
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return f"{'kept' if keeps else 'new'} connection: {type(error).__name__}: {error}"
    if answer.status != 200 or not body:
        return f"{answer.status} {body!r}"
    return ""


def main(port: int, path: str, least: int) -> int:
    """Run the clients; the exit status."""
    tally = Tally()
    is_over = threading.Event()

    def client(keeps: bool) -> None:
        connection = Counted(port, tally.connected)
        while (not is_over.is_set() or tally.answered < least) and len(tally.errors) < _TOO_MANY:
            tally.count(ask(connection, path, keeps))
        connection.close()

    def wait_end() -> None:
        os.read(0, 1)  # not the buffered stream, whose lock would hold up the end of the process
        is_over.set()

    threading.Thread(target=wait_end, daemon=True).start()
    clients = [threading.Thread(target=client, args=(number % 2 == 0,)) for number in range(_CLIENTS)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    print(json.dumps({"answered": tally.answered, "connections": tally.connections, "errors": tally.errors}))
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
