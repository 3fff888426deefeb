"""The proxies: where each is found, and how it is configured.

Law: all do the same work. One worker on one core, keep-alive on both sides, an access log in the proxy's own
usual format, Host and X-Forwarded-* for the upstream. With TLS the same certificate, TLS 1.2 and 1.3, the
upstream's certificate verified; tickets and ciphers as each has them. Beyond that and the size of tables
everything is as the proxy comes: nginx buffers bodies, because that is what its users have.
"""

from __future__ import annotations

import os
from pathlib import Path

from .certificate import NAME
from .envoy import Envoy
from .nginx import Nginx, SystemNginx
from .proxy import KEEPALIVE, MAX_CONNECTIONS, Launch, Place, Proxy
from .rows import BINARY, Wire

ROOT = Path(__file__).resolve().parents[2]


class Sidecar(Proxy):
    """The proxy of this repository."""

    name = "sidecar"

    def launch(self, place: Place) -> Launch:
        """One drop-in; everything that it does not name stays at its default."""
        lines = [
            "[upstream app]",
            f"server.a = 127.0.0.1:{place.upstream}",
            f"keepalive = {KEEPALIVE}",
        ]
        if place.wire.upstream_tls:
            authority = place.certificate.authority
            lines += ["protocol = https", f"tls_ca = {authority}", f"tls_server_name = {NAME}"]
        elif place.wire.upstream_http2:
            lines.append("protocol = h2c")
        return self._launch(place, [*lines, "", "[route all]", "path_prefix = /", "upstream = app"])

    def launch_bare(self, place: Place) -> Launch | None:
        """One route that answers itself."""
        return self._launch(place, ["[route all]", "respond = 200 OK"])

    def _launch(self, place: Place, routes: list[str]) -> Launch:
        lines = ["[sidecar]", f"access_log = {place.access_log}", "log_format = json", "", "[listener main]"]
        lines.append(f"bind = 127.0.0.1:{place.port}")
        if place.wire.tls:
            lines.append("tls = site")
        if place.wire.http2:
            lines.append("http2 = on")
        if place.wire.tls:
            pair = place.certificate
            lines += ["", "[certificate site]", f"certificate = {pair.chain}", f"key = {pair.key}"]
        conf = place.folder / "conf.d"
        conf.mkdir()
        (conf / "bench.ini").write_text("\n".join([*lines, "", *routes, ""]))
        return Launch([self.executable(), "run", "--conf", str(conf)], place.access_log)


class Binary(Sidecar):
    """The same as one file. It takes part where rows ask for it, or when it is named."""

    name = BINARY

    def binary(self) -> Path | None:
        """What `make binary` makes."""
        made = ROOT / "dist" / "sidecar"
        return made if os.access(made, os.X_OK) else None


class Haproxy(Proxy):
    """HAProxy with one thread."""

    name = "haproxy"
    version_option = "-v"

    def unable(self, wire: Wire) -> str | None:
        """HTTP/2 is always in it, TLS by choice of who built it."""
        if (wire.tls or wire.upstream_tls) and "+OPENSSL" not in self.told("-vv"):
            return "it was built without OpenSSL"
        return None

    def launch(self, place: Place) -> Launch:
        """The HTTP log goes to the output, as in a container; connections to the upstream are shared.

        The number of connections follows from the files it may open, two for each.
        """
        scheme = "https" if place.wire.tls else "http"
        listener = server = ""
        if place.wire.tls:
            protocols = "h2,http/1.1" if place.wire.http2 else "http/1.1"
            listener = f" ssl crt {place.certificate.bundle} alpn {protocols}"
        elif place.wire.http2:
            listener = " proto h2"
        if place.wire.upstream_tls:
            authority = place.certificate.authority
            server = f" ssl verify required ca-file {authority} sni str({NAME}) verifyhost {NAME}"
        elif place.wire.upstream_http2:
            server = " proto h2"
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
    bind 127.0.0.1:{place.port} backlog 4096{listener}
    http-request set-header X-Forwarded-Proto {scheme}
    default_backend app

backend app
    server a 127.0.0.1:{place.upstream} pool-max-conn {KEEPALIVE}{server}
""",
        )
        return Launch([self.executable(), "-db", "-f", conf], place.folder / f"{self.name}.out")


class Caddy(Proxy):
    """Caddy with one thread that runs Go code."""

    name = "caddy"
    version_option = "version"

    def launch(self, place: Place) -> Launch:
        """`reverse_proxy` with a file log; the log is not rolled, for a run must not pay to pack the last."""
        wire = place.wire
        site = f"https://{NAME}:{place.port}" if wire.tls else f"http://:{place.port}"
        protocols = "h1" if not wire.http2 else "h1 h2" if wire.tls else "h1 h2c"
        pair = f"tls {place.certificate.chain} {place.certificate.key}" if wire.tls else ""
        transport = ["transport http {", f"\tkeepalive_idle_conns_per_host {KEEPALIVE}"]
        if wire.upstream_tls:
            authority = place.certificate.authority
            transport += ["\ttls", f"\ttls_trust_pool file {authority}", f"\ttls_server_name {NAME}"]
        elif wire.upstream_http2:
            transport.append("\tversions h2c")
        lines = "\n\t\t".join([*transport, "}"])
        conf = place.write(
            "Caddyfile",
            f"""\
{{
	admin off
	auto_https off
	persist_config off
	servers {{
		protocols {protocols}
	}}
}}
{site} {{
	{pair}
	bind 127.0.0.1
	log {{
		output file {place.access_log} {{
			roll_disabled
		}}
	}}
	reverse_proxy 127.0.0.1:{place.upstream} {{
		{lines}
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


#: The order of the table: sidecar, then what it is compared with.
PROXIES: tuple[Proxy, ...] = (Sidecar(), Binary(), Nginx(), SystemNginx(), Haproxy(), Envoy(), Caddy())
