"""Listening sockets that this process did not open: from the service manager, or from the one it replaces.

Laws. What came is taken out of the environment and is closed at an exec. A socket of the service manager is
kept as long as the process lives. The two ends of an upgrade speak over a pair of sockets: the new process
says which places it serves, the old one closes its end when it has left them.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any, Final

from gevent import socket

from ..errors import ConfigurationError

#: The variables of sd_listen_fds(3), and ours.
_PID: Final = "LISTEN_PID"
_COUNT: Final = "LISTEN_FDS"
_NAMES: Final = "LISTEN_FDNAMES"
_SOCKETS: Final = "SIDECAR_SOCKETS"
VARIABLES: Final = (_PID, _COUNT, _NAMES, _SOCKETS)

_FIRST: Final = 3
_NUMBER: Final = re.compile(r"[0-9]{1,4}")
_NAMELESS: Final = "unknown"  # what sd_listen_fds_with_names calls a socket without a name
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
_LONGEST_WORD: Final = 4 << 20  # bytes of a list of places


class Unfit(OSError):
    """A socket that was named and cannot be served. Its text says what is wrong and what would be right."""


class Inherited:
    """What `receive` found. Without arguments: nothing."""

    def __init__(
        self,
        named: Iterable[tuple[str, int]] = (),
        placed: Iterable[tuple[str, int]] = (),
        control: Any = None,
    ) -> None:
        self._named: dict[str, list[int]] = {}
        for name, descriptor in named:
            self._named.setdefault(name, []).append(descriptor)
        self._placed = dict(placed)
        self._control = control

    @property
    def is_heir(self) -> bool:
        """Whether there is a process that this one replaces."""
        return self._control is not None

    def named(self) -> list[tuple[str, int]]:
        """(name, descriptor) of each socket of the service manager."""
        return [(name, one) for name, descriptors in self._named.items() for one in descriptors]

    def count(self, name: str) -> int:
        """How many sockets have this name."""
        return len(self._named.get(name, ()))

    def open(self, name: str, at: int) -> Any:
        """A listening socket: a duplicate of socket number `at` of a name. Raises Unfit, or OSError."""
        descriptors = self._named.get(name, [])
        if at >= len(descriptors):
            raise Unfit(_missing(name, list(self._named)))
        return adopt(os.dup(_checked(descriptors[at])))

    def take(self, place: str) -> Any:
        """The listening socket that the replaced process had at a place, once; None when it had none."""
        descriptor = self._placed.pop(place, None)
        return None if descriptor is None else adopt(descriptor)

    def holds_port(self, port: int) -> bool:
        """Whether the replaced process listens on a port that nobody has taken from it (yet)."""
        return any(_port(descriptor) == port for descriptor in self._placed.values()) if port else False

    def close_rest(self) -> None:
        """Close what the replaced process had and nobody took: it ends those itself."""
        while self._placed:
            os.close(self._placed.popitem()[1])

    def serves(self, places: Iterable[str]) -> None:
        """Tell the replaced process which places are served from now on."""
        if self._control is not None:
            # One that is gone needs no word; its places are ours all the same.
            with suppress(OSError):
                self._control.sendall(json.dumps(list(places)).encode() + b"\n")

    def wait_left(self) -> None:
        """Wait until the replaced process has left its places, or is gone."""
        if self._control is not None:
            with suppress(OSError):
                while self._control.recv(1):
                    pass
            self._control.close()
            self._control = None


class Heritage:
    """The other side: what a new process shall inherit, and the line to it. Close it with `release`."""

    def __init__(self, named: Iterable[tuple[str, int]], placed: Mapping[str, int]) -> None:
        self._control, self._theirs = socket.socketpair()
        self._named = list(named)
        self._placed = placed

    @property
    def descriptors(self) -> list[int]:
        """All that the new process must find open."""
        return [one for _, one in self._named] + [*self._placed.values(), self._theirs.fileno()]

    def variables(self) -> dict[str, str]:
        """By what the new process finds them."""
        sockets = {"control": self._theirs.fileno(), "named": self._named, "placed": [*self._placed.items()]}
        return {_SOCKETS: json.dumps(sockets)}

    def started(self) -> None:
        """The new process has its end of the line; when it dies, `wait_served` shall see that."""
        self._theirs.close()

    def wait_served(self, timeout: float) -> frozenset[str]:
        """The places that the new process serves, within `timeout` seconds.

        Raises TimeoutError, EOFError when it is gone, or ValueError when it speaks otherwise.
        """
        self._control.settimeout(timeout)
        word = b""
        while not word.endswith(b"\n"):
            try:
                piece = self._control.recv(65536)
            except ConnectionError:
                piece = b""
            if not piece:
                raise EOFError
            word += piece
            if len(word) > _LONGEST_WORD:
                raise ValueError("too many places")
        return frozenset(map(str, json.loads(word)))

    def release(self) -> None:
        """Tell the new process that the places are its own now, or that nobody waits for it any more."""
        self._theirs.close()
        self._control.close()


def receive(environ: MutableMapping[str, str]) -> Inherited:
    """What this process inherits. Raises ConfigurationError when the variables contradict what is there."""
    given = {name: environ.pop(name, "") for name in VARIABLES}
    try:
        # Who has replaced a process got its sockets with its own variables, whatever else is there.
        return _from_process(given[_SOCKETS]) if given[_SOCKETS] else _from_manager(given)
    except (ValueError, OSError) as error:
        raise ConfigurationError([f"{error}: start sidecar without {', '.join(VARIABLES)}"]) from error


def _from_manager(given: Mapping[str, str]) -> Inherited:
    # The variables of another process that this one was started by are not for this one.
    if given[_PID] != str(os.getpid()):
        return Inherited()
    if not _NUMBER.fullmatch(given[_COUNT]):
        raise ValueError(f"{_COUNT} is '{given[_COUNT]}', which is no number of sockets")
    count = int(given[_COUNT])
    names = given[_NAMES].split(":") if given[_NAMES] else [_NAMELESS] * count
    if len(names) != count:
        raise ValueError(f"{_COUNT} is {count} and {_NAMES} has {len(names)} names")
    named = [(name or _NAMELESS, _FIRST + at) for at, name in enumerate(names)]
    _keep_from_children(descriptor for _, descriptor in named)
    return Inherited(named)


def _from_process(text: str) -> Inherited:
    try:
        sockets = json.loads(text)
        named = [(str(name), int(one)) for name, one in sockets["named"]]
        placed = [(str(place), int(one)) for place, one in sockets["placed"]]
        control = int(sockets["control"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{_SOCKETS} does not say which sockets are open") from error
    _keep_from_children([control, *(one for _, one in named + placed)])
    for _, descriptor in placed:
        _checked(descriptor)
    return Inherited(named, placed, socket.socket(fileno=control))


def _keep_from_children(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        try:
            os.set_inheritable(descriptor, False)
        except OSError as error:
            raise ValueError(f"descriptor {descriptor} is no socket: {error.strerror}") from error


def _checked(descriptor: int) -> int:
    """The descriptor of a listening stream socket. Raises Unfit for another."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        raise Unfit(f"descriptor {descriptor} is no socket: write ListenStream= in its unit")
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        is_stream = sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
        if sock.family not in _FAMILIES or not is_stream:
            raise Unfit(
                f"descriptor {descriptor} is no TCP or UNIX stream socket: write ListenStream= in its unit"
            )
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise Unfit(
                f"descriptor {descriptor} does not listen: write ListenStream= and Accept=no in its unit"
            )
    return descriptor


def adopt(descriptor: int) -> Any:
    """A listening socket of a descriptor, which it owns from now on, as `listen` would make it."""
    sock = socket.socket(fileno=descriptor)
    sock.setblocking(False)
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _port(descriptor: int) -> int:
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        return 0 if sock.family == socket.AF_UNIX else int(sock.getsockname()[1])


def _missing(name: str, names: list[str]) -> str:
    if not names:
        return (
            "no sockets were inherited: start sidecar by a socket unit with "
            f"FileDescriptorName={name}, or write host:port"
        )
    return f"no inherited socket has this name: write {' or '.join(f'fd:{one}' for one in names)}"
