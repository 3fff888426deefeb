"""A server is started, asked until it answers, and ended."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.bench.process import BenchError, Server, free_port

ANSWERING = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(sys.argv[2]))
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def spawn(folder: Path, code: str, status: int = 200) -> Server:
    port = free_port()
    return Server.spawn("a", port, [sys.executable, "-c", code, str(port), str(status)], {}, folder)


def test_an_answer_is_waited_for(tmp_path: Path):
    server = spawn(tmp_path, ANSWERING)
    try:
        server.await_(server.answers)
        assert server.ask("GET", "/") == (200, b"")
    finally:
        server.stop()
    assert not server.accepts()


def test_another_status_is_no_answer(tmp_path: Path):
    server = spawn(tmp_path, ANSWERING, 503)
    try:
        server.await_(server.accepts)
        assert not server.answers()
    finally:
        server.stop()


def test_who_ends_instead_is_told_with_what_it_said(tmp_path: Path):
    server = spawn(tmp_path, "import sys; sys.exit('no port for me')")
    with pytest.raises(BenchError, match=r"a exited with 1:\nno port for me"):
        server.await_(server.answers)
    server.stop()
