"""A WebSocket server that is not ours: it sends every message back."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from websockets.sync.server import ServerConnection, serve


def _echo(connection: ServerConnection) -> None:
    for message in connection:
        if message == "leave":
            connection.close(4001, "as you wish")
            return
        connection.send(message)


@contextlib.contextmanager
def echo() -> Iterator[str]:
    """Its address. It closes a connection on which somebody says "leave"."""
    with serve(_echo, "127.0.0.1", 0, max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join()
