"""The demo upstream: a small server that tells what reached it and misbehaves on request.

Law: everything a client can ask for has a bound, and speed does not matter. It serves trials, not users.

Any path answers with a JSON description of the request. The query changes the answer: `status=503`,
`size=1000000` (bytes of text instead of the description), `delay=1.5` (seconds before the answer), `drip=2`
(seconds that the body takes), `chunked=1`, `trailers=1`, `close=1` (the end of the connection ends the body).
`/ws` sends WebSocket messages back.
"""

from __future__ import annotations

from .server import DemoServer, serve, start

__all__ = ["DemoServer", "serve", "start"]
