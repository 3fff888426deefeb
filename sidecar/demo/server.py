"""The demo upstream as a server: its socket, its connections, its start and its end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import socketserver
import sys
import threading
from typing import Any, Final

import gevent
from gevent.event import Event

from ..config.addresses import BIND, Address
from ..errors import ConfigurationError
from ..net.listener import listen
from .handler import Handler

MAX_CONNECTIONS: Final = 1024

_FULL: Final = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """The listening socket and its connections, a thread each. Raises OSError when it cannot listen."""

    daemon_threads = True

    def __init__(self, address: Address, sock: Any = None) -> None:
        super().__init__((address.host, address.port), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = sock or listen(address)
        bound = self.socket.getsockname()
        self.name = str(address if address.is_unix else Address(*bound[:2]))
        self._path = address.path
        self.is_leaving = False
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._open: set[Any] = set()

    def pause(self, seconds: float) -> None:
        """Wait. Raises ConnectionError when the server stops meanwhile."""
        if seconds and self._stopping.wait(seconds):
            raise ConnectionError("the server stops")

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection unless there are too many."""
        with self._lock:
            is_full = len(self._open) >= MAX_CONNECTIONS
            if not is_full:
                self._open.add(request)
        if is_full:
            with contextlib.suppress(OSError):
                request.sendall(_FULL)
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        """The connection is over."""
        with self._lock:
            self._open.discard(request)
        super().close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news; anything else is a bug and shows its traceback."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def leave(self) -> None:
        """Stop listening; connections that are open end after one more exchange."""
        self.is_leaving = True
        self.shutdown()
        self.server_close()

    def end(self) -> None:
        """Stop listening and cut off what is open."""
        self._stopping.set()
        self.leave()
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        with self._lock:
            for request in self._open:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)


class DemoServer:
    """A demo upstream that serves until it is stopped."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self.address = server.name  # as in a configuration, the port resolved
        self.descriptor = server.socket.fileno()
        threading.Thread(target=server.serve_forever, args=(0.1,), name="demo", daemon=True).start()

    def leave(self) -> None:
        """Leave the socket to another process; connections that are open end after one more exchange."""
        self._server.leave()

    def stop(self) -> None:
        """Stop listening and cut off what is open."""
        self._server.end()


def start(bind: str, sock: Any = None) -> DemoServer:
    """Serve at `bind` (`host:port`, `[v6]:port`, `unix:/path`) beside whatever else the process does.

    `sock` listens there already. Raises ConfigurationError when `bind` is no address, or not to be had.
    """
    try:
        address = BIND.parse(bind)
        if address.is_inherited:
            raise ValueError(f"{address} is for listeners: write host:port or unix:/path")
        return DemoServer(_Server(address, sock))
    except ValueError as error:
        raise ConfigurationError([f"demo upstream: {error}"]) from error
    except OSError as error:
        text = error.strerror or str(error)
        raise ConfigurationError([f"demo upstream: {bind}: {text}: name an address that is free"]) from error


def serve(bind: str = "127.0.0.1:8000") -> int:
    """Serve at `bind` until SIGINT or SIGTERM; the exit status. Raises as `start`."""
    server = start(bind)
    done = Event()
    watchers = [gevent.signal_handler(number, done.set) for number in (signal.SIGINT, signal.SIGTERM)]
    sys.stderr.write(f"demo upstream: {server.address}\n")
    sys.stderr.flush()
    done.wait()
    server.stop()
    for watcher in watchers:
        watcher.cancel()
    return 0
