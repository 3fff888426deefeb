"""A fast upstream of its own process: sends every body back, and bytes on request.

Run as `python echo_server.py`; it prints its port. `GET /bytes/N` is answered with N bytes that follow from N
(`pattern`); anything else with the body it came with. It believes what the sidecar sends: lengths, no chunks.
"""

from __future__ import annotations

import asyncio
import hashlib


def pattern(size: int) -> bytes:
    """`size` bytes that belong to this size alone."""
    block = hashlib.sha512(str(size).encode()).digest()
    return (block * (size // len(block) + 1))[:size]


class Echo(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with nothing."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        """Answer what is complete."""
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end]
            _, _, length = head.lower().partition(b"\r\ncontent-length:")
            stop = end + 4 + int(length.partition(b"\r\n")[0] or 0)
            if len(self._received) < stop:
                return
            body, self._received = self._received[end + 4 : stop], self._received[stop:]
            target = head.split(b" ", 2)[1]
            if target.startswith(b"/bytes/"):
                body = pattern(int(target[7:]))
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
