"""Headless Chromium, and an app whose page tries what browsers do and reports how it went."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.live import until
from tests.support.programs import program

PARTS: Final = 50
TICKS: Final = 5
_START: Final = 60.0
#: Seconds for the installation, which brings some hundred megabytes.
INSTALLATION: Final = 280.0

#: What it does without being asked would be traffic that no test expects.
_QUIET: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--disable-features=HttpsUpgrades,OptimizationHints,MediaRouter",
    "--no-first-run",
    "--no-default-browser-check",
    "--metrics-recording-only",
)

_PAGE: Final = """<!doctype html><title>shop</title><link rel="icon" href="data:,">
<script>
const answers = {};
const waited = ms => new Promise((_, fail) => setTimeout(() => fail(new Error("took too long")), ms));
const attempt = async (name, what) => {
  try { answers[name] = await Promise.race([what(), waited(15000)]); }
  catch (error) { answers[name] = String(error); }
};
const parts = async () => {
  const bodies = await Promise.all([...Array(PARTS).keys()].map(
    n => fetch(`/part/${n}`).then(answer => answer.text())));
  return bodies.every((body, n) => body === `part ${n}`) ? "whole" : "mixed up";
};
const chat = () => new Promise((done, fail) => {
  const got = [], socket = new WebSocket(`wss://${location.host}/chat`);
  const large = new Uint8Array(1000000).map((_, n) => Math.imul(n, 2654435761) >>> 11);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => { socket.send("hello"); socket.send(large); };
  socket.onmessage = event => {
    if (got.push(event.data) < 2) return;
    const same = new Uint8Array(got[1]).every((byte, n) => byte === large[n]);
    socket.onclose = end => done([got[0], got[1].byteLength, same, end.code, end.wasClean]);
    socket.close(1000);
  };
  socket.onerror = () => fail(new Error("no WebSocket"));
});
const ticks = () => new Promise((done, fail) => {
  const got = [], source = new EventSource("/ticks");
  source.onmessage = event => {
    if (got.push(event.data) === TICKS) { source.close(); done(got); }
  };
  source.onerror = () => fail(new Error("no EventSource"));
});
const stream = async () => {
  const reader = (await fetch("/stream")).body.getReader(), text = new TextDecoder();
  const got = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return got;
    got.push(text.decode(value));
    await fetch("/step", { method: "POST", body: String(got.length) });
  }
};
const upload = async () => {
  const bytes = new Uint8Array(3000000).map((_, n) => n % 251);
  return (await fetch("/size", { method: "POST", body: bytes })).json();
};
const protocols = async () => {
  const seen = {};
  for (const entry of performance.getEntries())
    if (entry.nextHopProtocol) seen[entry.nextHopProtocol] = (seen[entry.nextHopProtocol] || 0) + 1;
  return seen;
};
const run = async () => {
  await attempt("parts", parts);
  await attempt("chat", chat);
  await attempt("ticks", ticks);
  await attempt("stream", stream);
  await attempt("upload", upload);
  await attempt("protocols", protocols);
  answers.page = location.href;
  await fetch("/report", { method: "POST", body: JSON.stringify(answers) });
  if (location.pathname === "/") location.href = "http://" + location.host + "/again";
};
run();
</script>"""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 2 * PARTS  # they all come at once


class App:
    """What is behind the sidecar. `reports`: what pages said."""

    def __init__(self) -> None:
        self.reports: list[dict[str, Any]] = []
        self.step = threading.Semaphore(0)
        app = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def do_GET(self) -> None:
                app.get(self)

            def do_POST(self) -> None:
                app.post(self, self.rfile.read(int(self.headers["Content-Length"])))

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> App:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def report(self, path: str) -> dict[str, Any]:
        """What the page at that path said, once it has."""

        def found() -> dict[str, Any] | None:
            return next((one for one in self.reports if one["page"].endswith(path)), None)

        said = until(found, f"the browser reports from {path}", _START)
        assert said is not None
        return said

    def get(self, handler: BaseHTTPRequestHandler) -> None:
        """The page, its parts, and what comes piece by piece."""
        path = handler.path
        if path == "/ticks":
            pieces = [f"data: {number}\n\n".encode() for number in range(TICKS)]
            self._stream(handler, "text/event-stream", pieces)
        elif path == "/stream":
            self._stream(handler, "text/plain", [b"one", b"two", b"three"], self.step)
        elif path.startswith("/part/"):
            _answer(handler, "text/plain", f"part {path[6:]}".encode())
        else:
            page = _PAGE.replace("PARTS", str(PARTS)).replace("TICKS", str(TICKS))
            _answer(handler, "text/html; charset=utf-8", page.encode())

    def post(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        """What the page says."""
        if handler.path == "/report":
            self.reports.append(json.loads(body))
        elif handler.path == "/step":
            self.step.release()
        told = [len(body), hashlib.sha256(body).hexdigest()] if handler.path == "/size" else []
        _answer(handler, "application/json", json.dumps(told).encode())

    def _stream(
        self,
        handler: BaseHTTPRequestHandler,
        kind: str,
        pieces: list[bytes],
        step: threading.Semaphore | None = None,
    ) -> None:
        """Each piece in a chunk; with `step` the next one when the page has told of the one before."""
        _head(handler, kind, "Transfer-Encoding", "chunked")
        for piece in pieces:
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            handler.wfile.flush()
            if step is not None:
                step.acquire(timeout=10)
        handler.wfile.write(b"0\r\n\r\n")


def _head(handler: BaseHTTPRequestHandler, kind: str, name: str, value: str) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", kind)
    handler.send_header("Cache-Control", "no-store")
    handler.send_header(name, value)
    handler.end_headers()


def _answer(handler: BaseHTTPRequestHandler, kind: str, body: bytes) -> None:
    _head(handler, kind, "Content-Length", str(len(body)))
    handler.wfile.write(body)


def fingerprint(certificate: bytes) -> str:
    """Of the public key of a certificate (PEM), as Chromium takes it."""
    key = x509.load_pem_x509_certificate(certificate).public_key()
    digest = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    return base64.b64encode(digest).decode()


@contextlib.contextmanager
def chromium(folder: Path, url: str, certificate: bytes, places: Mapping[str, int]) -> Iterator[Path]:
    """A browser at `url` that believes one certificate; the file of what it writes.

    `places`: host:port → the port of 127.0.0.1 where that is; it knows no other host.
    """
    rules = [f"MAP {host} 127.0.0.1:{port}" for host, port in places.items()]
    words = [
        program("chromium", patience=INSTALLATION),
        *_QUIET,
        f"--user-data-dir={folder / 'profile'}",
        f"--ignore-certificate-errors-spki-list={fingerprint(certificate)}",
        f"--host-resolver-rules={', '.join([*rules, 'MAP * ~NOTFOUND'])}",
        "--enable-logging=stderr",
        url,
    ]
    folder.mkdir(parents=True, exist_ok=True)
    said = folder / "said"
    with said.open("wb") as out:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, "HOME": str(folder)},
            start_new_session=True,
        )
    try:
        yield said
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
