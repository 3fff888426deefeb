"""The life of a sidecar in a root with nothing in it but the binary, its drop-ins, /proc and /tmp.

`python empty_root.py ROOT BINARY` runs in namespaces (processes, mounts, network) that go with it, and writes
what it saw as JSON.
"""

from __future__ import annotations

import http.client
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dns.message
import dns.rdatatype
import dns.rrset

LISTENER = "[listener public]\nbind = 127.0.0.1:8080\n"
BY_NAME = "[upstream app]\nserver.a = app.example.test:8000\n[route app]\npath_prefix = /\nupstream = app\n"
HELLO = "[route hello]\npath = /hello\nrespond = 200 Hello\n"


def answer_names() -> None:
    """Be the name server that is asked when nobody says which: everything is at 127.0.0.1."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 53))
    while True:
        data, peer = sock.recvfrom(4096)
        query = dns.message.from_wire(data)
        response = dns.message.make_response(query)
        question = query.question[0]
        if question.rdtype == dns.rdatatype.A:
            response.answer.append(dns.rrset.from_text(question.name, 60, "IN", "A", "127.0.0.1"))
        sock.sendto(response.to_wire(), peer)


class App(http.server.BaseHTTPRequestHandler):
    """The upstream."""

    def do_GET(self) -> None:
        """Tell who answered."""
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"app")

    def log_message(self, *_: object) -> None:
        """Nothing."""


def get(path: str) -> tuple[int, str]:
    """(status, body); (0, "") when nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    except ConnectionError:
        return 0, ""
    finally:
        connection.close()


def until(condition: Callable[[], bool]) -> bool:
    """Whether it came true within ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def live(root: Path, binary: Path) -> dict[str, Any]:
    """Check, tell, run, serve, reload and drain in `root`; what was seen."""
    for name in ("proc", "tmp", "conf.d"):
        (root / name).mkdir(parents=True)
    shutil.copy(binary, root / "sidecar")
    subprocess.run(["mount", "-t", "proc", "proc", root / "proc"], check=True)
    (root / "conf.d" / "10.ini").write_text(LISTENER + BY_NAME)
    threading.Thread(target=answer_names, daemon=True).start()
    app = http.server.ThreadingHTTPServer(("127.0.0.1", 8000), App)
    threading.Thread(target=app.serve_forever, daemon=True).start()
    inside = [shutil.which("chroot") or "chroot", str(root), "/sidecar"]
    environment = {"TZ": "Europe/Berlin"}
    seen: dict[str, Any] = {"entries": sorted(os.listdir(root))}
    check = subprocess.run(
        [*inside, "check", "--conf", "/conf.d"], env=environment, capture_output=True, text=True
    )
    seen["check"] = [check.returncode, check.stdout, check.stderr]
    told = subprocess.run([*inside, "about", "--json"], env=environment, capture_output=True, text=True)
    seen["about"] = json.loads(told.stdout)
    with (root.parent / "log").open("wb") as log:
        process = subprocess.Popen(
            [*inside, "run", "--conf", "/conf.d"], env=environment, stdout=log, stderr=log
        )
        until(lambda: get("/")[0] != 0)
        seen["by name"] = get("/")
        (root / "conf.d" / "20.ini").write_text(HELLO)
        until(lambda: get("/hello")[1] == "Hello")
        seen["after a reload"] = get("/hello")
        process.send_signal(signal.SIGTERM)
        seen["status"] = process.wait(10)
    seen["left"] = os.listdir(root / "tmp")
    seen["log"] = (root.parent / "log").read_text()
    return seen


if __name__ == "__main__":
    print(json.dumps(live(Path(sys.argv[1]), Path(sys.argv[2]))))
