"""Listening sockets: gevent's StreamServer, accepting channels instead of socket objects.

Running out of descriptors, or reaching the bound on connections, pauses accepting: clients wait in the
kernel's backlog, nothing spins and nobody gets an error.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable
from typing import Any, Final

from gevent.pool import Pool
from gevent.server import StreamServer

from ..config.addresses import Address
from .channel import Channel
from .inherit import Unfit

_BACKLOG: Final = 4096  # the kernel takes the smaller of this and net.core.somaxconn
_EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))

_ADVICE: Final = {
    errno.EADDRINUSE: "is in use by another process: stop it, or choose another port",
    errno.EACCES: "needs a permission this process does not have: choose a port from 1024 on, or grant "
    "CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "is not an address of this machine: write 0.0.0.0 for all of them",
    errno.EAFNOSUPPORT: "is of a kind that this machine does not have: write an IPv4 address",
    errno.EMFILE: "finds no descriptor left: raise the limit of open files",
}
_PATH_ADVICE: Final = {
    errno.EADDRINUSE: "is in use by another process: stop it, or choose another path",
    errno.EEXIST: "is a file and no socket: remove it, or choose another path",
    errno.ENOENT: "is in a directory that does not exist: make it first",
    errno.ENOTDIR: "is below something that is not a directory: choose another path",
    errno.EROFS: "is on a read-only file system: choose another path, like one in /run",
}

Handle = Callable[[Channel, Any], None]


def bind_advice(error: OSError) -> str:
    """What is wrong with an address that cannot be listened on, and what would be right."""
    if isinstance(error, Unfit):
        return str(error)
    if isinstance(error, socket.gaierror):
        return "is a name that cannot be resolved: write an address of this machine"
    if error.filename and error.errno == errno.EACCES:
        remedy = "change the permissions of its directory, or choose another path"
        return f"uid {os.geteuid()} may not make it: {remedy}"
    advice = _PATH_ADVICE if error.filename else _ADVICE
    return advice.get(error.errno or 0, f"cannot be bound: {error.strerror or error}")


def listen(address: Address) -> Any:
    """A listening socket. Raises OSError; a socket file that nobody listens on any more is replaced."""
    if address.is_unix:
        _remove_stale(address.path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        target: Any = address.path
    else:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, target = found[0][0], found[0][4]
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        if sock.family == socket.AF_INET6:
            # [::] is IPv6 only, as in nginx, so that 0.0.0.0 can stand beside it.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if not address.is_unix:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Accepted sockets inherit it, which saves a system call each.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind(target)
        if address.is_unix:
            # Who may connect is decided by the directory, not by the umask of this process (nginx).
            os.chmod(address.path, 0o666)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        if address.is_unix:
            raise _of_path(error, address.path) from error
        raise
    return sock


def _of_path(error: OSError, path: str) -> OSError:
    """The same with the file it is about, by which `bind_advice` knows that there is one."""
    code = error.errno
    with contextlib.suppress(OSError):
        if code == errno.EADDRINUSE and not stat.S_ISSOCK(os.stat(path).st_mode):
            code = errno.EEXIST
    return OSError(code, error.strerror, path)


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except OSError:
        return
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Whoever listens but does not accept any more must not hold us up.
    probe.setblocking(False)
    try:
        if probe.connect_ex(path) == errno.ECONNREFUSED:
            os.unlink(path)
    finally:
        probe.close()


class Listener(StreamServer):  # type: ignore[misc]
    """One listening socket. `handle(channel, peer)` runs in a greenlet of `pool` for each connection.

    `sock` is one that listens already; without it the address is bound. Raises OSError.
    """

    min_delay = 0.05
    #: Connections that begin before others have their turn: nobody shall wait because many come at once.
    max_accept = 10
    delay: float

    def __init__(
        self, address: Address, handle: Handle, pool: Pool, event: Callable[..., None], sock: Any = None
    ) -> None:
        self.bind = address
        self.is_adopted = sock is not None
        self._event = event
        self._exhausted = False
        super().__init__(sock or listen(address), handle, spawn=pool)
        self.bound = self._bound_address()

    def _bound_address(self) -> Address:
        if self.bind.is_unix:
            return self.bind
        name = self.socket.getsockname()
        if self.socket.family == socket.AF_UNIX:
            # One without a file begins with a NUL.
            return Address(path=os.fsdecode(name).replace("\0", "@"))
        return Address(name[0], name[1])

    def do_read(self) -> tuple[Channel, Any] | None:
        """Accept one connection; None when there is none, or no room for one."""
        try:
            fd, peer = self.socket._accept()
        except BlockingIOError:
            return None
        except ConnectionAbortedError:
            return None
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            self._pause(error)
            return None
        if self._exhausted:
            self._exhausted = False
            self._event("accept_resumed", listener=str(self.bound))
        return Channel(fd, True), peer

    def _pause(self, error: OSError) -> None:
        if not self._exhausted:
            self._exhausted = True
            self._event("accept_paused", listener=str(self.bound), reason=error.strerror)
        self.stop_accepting()
        self._timer = self.loop.timer(self.delay)
        self._timer.start(self._start_accepting_if_started)
        self.delay = min(self.max_delay, self.delay * 2)

    def do_close(self, channel: Channel, *args: Any) -> None:
        """What gevent calls when the handler has returned, whatever happened."""
        channel.close()

    def leave(self) -> None:
        """Accept no more. The socket, its file and who waits to be accepted belong to another process."""
        self.close()

    def end(self) -> None:
        """Give the address back, once. Who connected until now is still served; connections go on."""
        if self.closed:
            # The file may be another one's by now.
            return
        if self.started:
            while not self.full() and (accepted := self.do_read()) is not None:
                self.do_handle(*accepted)
        self.close()
        if self.bind.is_unix:
            with contextlib.suppress(OSError):
                os.unlink(self.bind.path)
