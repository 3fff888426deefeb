"""Certificates for tests, and ends of TLS connections: ours, Python's in a thread, one that is scripted."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import gevent
import trustme

from sidecar.errors import Failure
from sidecar.net.channel import Channel
from sidecar.net.tls import ClientContext, Pair, ServerContext, Terminator, Tickets
from sidecar.net.tls_channel import TlsChannel
from tests.support.streams import TIMEOUT, Peer, outcome, start, tcp_pair

RSA = trustme.KeyType.RSA
ECDSA = trustme.KeyType.ECDSA


@cache
def authority() -> trustme.CA:
    """The one that both sides trust."""
    return trustme.CA()


@cache
def pair(*names: str, key_type: trustme.KeyType = ECDSA) -> Pair:
    """A certificate for `names`, and its key."""
    return as_pair(authority().issue_cert(*names, key_type=key_type))


def as_pair(leaf: trustme.LeafCert) -> Pair:
    """What trustme made, as we take it."""
    chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
    return Pair(chain, leaf.private_key_pem.bytes())


def roots() -> bytes:
    """What trusts `authority`, PEM."""
    return authority().cert_pem.bytes()


def tickets() -> Tickets:
    """Keys of a process."""
    return Tickets(os.urandom, time.monotonic)


def server_context(*pairs: Pair, **options: Any) -> ServerContext:
    """One [certificate]; for localhost when nothing else is said."""
    options = {"tickets": tickets(), "identity": b"site", **options}
    return ServerContext(pairs or (pair("localhost"),), **options)


def terminator(context: ServerContext | None = None, *alpn: bytes) -> Terminator:
    """A listener with one certificate."""
    one = context or server_context()
    return Terminator(lambda name: one, alpn or (b"http/1.1",))


def client_context(**options: Any) -> ClientContext:
    """Trust in `authority`."""
    return ClientContext(**{"ca": roots(), **options})


def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Run what blocks in a thread of its own; the caller takes the outcome with `outcome`."""
    return start(lambda: gevent.get_hub().threadpool.apply(function, args))


@contextlib.contextmanager
def both(
    server: Terminator | None = None,
    client: ClientContext | None = None,
    name: str = "localhost",
    **buffers: int,
) -> Iterator[tuple[TlsChannel, TlsChannel]]:
    """(client's end, server's end) of a connection, both ours."""
    one, two = tcp_pair(**buffers)
    ours, theirs = Channel(one.detach()), Channel(two.detach(), True)
    connecting = start((client or client_context()).connect, ours, name, TIMEOUT)
    try:
        accepted = (server or terminator()).secure(theirs, TIMEOUT)
    except Failure:
        # Where the server alone refuses, the client learns of it only when it reads.
        with contextlib.suppress(Failure):
            outcome(connecting).close()
        raise
    with contextlib.closing(accepted), contextlib.closing(outcome(connecting)) as connected:
        yield connected, accepted


def python_client(**options: Any) -> ssl.SSLContext:
    """Python's own client; `options` are attributes, `alpn` a list, `load` a pair."""
    context = ssl.create_default_context(cadata=roots().decode())
    return _with(context, options)


def python_server(*pairs: Pair, **options: Any) -> ssl.SSLContext:
    """Python's own server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for one in pairs or (pair("localhost"),):
        _load(context, one)
    return _with(context, options)


def _with(context: ssl.SSLContext, options: dict[str, Any]) -> ssl.SSLContext:
    for name, value in options.items():
        if name == "alpn":
            context.set_alpn_protocols(value)
        elif name == "load":
            _load(context, value)
        else:
            setattr(context, name, value)
    return context


def _load(context: ssl.SSLContext, one: Pair) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pair.pem"
        file.write_bytes(one.key + one.certificate)
        context.load_cert_chain(file)


def call(
    context: ssl.SSLContext,
    sock: socket.socket,
    use: Callable[[ssl.SSLSocket], Any],
    name: str | None = "localhost",
) -> Any:
    """Python's end in a thread: handshake, then `use`; a greenlet whose outcome is that of `use`."""

    def run() -> Any:
        sock.settimeout(TIMEOUT)
        if name is None:
            secure = context.wrap_socket(sock, server_side=True)
        else:
            secure = context.wrap_socket(sock, server_hostname=name or None)
        with secure:
            return use(secure)

    return in_thread(run)


class Script:
    """A client whose every byte on the wire is in the hands of the test. `peer` is its socket."""

    def __init__(self, peer: Peer, context: ssl.SSLContext | None = None, name: str = "localhost") -> None:
        self.peer = peer
        self.was_told = False  # a close_notify came
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = (context or python_client()).wrap_bio(self._in, self._out, server_hostname=name)

    def made(self) -> bytes:
        """The ciphertext made so far, which the test sends or does not."""
        return self._out.read()

    def receive(self) -> bool:
        """Take what comes on the socket; False for its end."""
        data = self.peer.sock.recv(65536)
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()
        return bool(data)

    def hello(self) -> bytes:
        """The ClientHello."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.made()

    def handshake(self, send: Callable[[bytes], None] | None = None) -> None:
        """The whole handshake; `send` sends each flight."""
        send = send or self.peer.send
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                send(self.made())
                assert self.receive(), "ended in the handshake"
            else:
                send(self.made())
                return

    def sealed(self, data: bytes) -> bytes:
        """The ciphertext of `data`."""
        self.tls.write(data)
        return self.made()

    def goodbye(self) -> bytes:
        """A close_notify."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self.made()

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes of plain text, fewer at the end."""
        data = b""
        while len(data) < size:
            try:
                piece = self.tls.read(size - len(data))
            except ssl.SSLWantReadError:
                self.receive()
                continue
            except ssl.SSLEOFError:
                break
            if not piece:
                self.was_told = True
                break
            data += piece
        return data
