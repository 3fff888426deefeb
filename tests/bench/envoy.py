"""Envoy as a proxy of the benchmark: the whole of its configuration, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping

from .certificate import NAME
from .proxy import Launch, Place, Proxy

_API = "type.googleapis.com/envoy.extensions"
_TLS = f"{_API}.transport_sockets.tls.v3"


class Envoy(Proxy):
    """Envoy with one worker thread beside its main thread."""

    name = "envoy"

    def launch(self, place: Place) -> Launch:
        """One listener, one cluster."""
        resources = {"listeners": [_listener(place)], "clusters": [_cluster(place)]}
        conf = place.write("envoy.json", json.dumps({"static_resources": resources}, indent=1))
        options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
        return Launch([self.executable(), "--config-path", conf, *options], place.access_log)


def _listener(place: Place) -> dict[str, object]:
    """One HTTP connection manager; which HTTP a client speaks it finds out by itself."""
    chain: dict[str, object] = {"filters": [{"name": "http", "typed_config": _manager(place)}]}
    if place.wire.tls:
        pair = {
            "certificate_chain": {"filename": str(place.certificate.chain)},
            "private_key": {"filename": str(place.certificate.key)},
        }
        common: dict[str, object] = {"tls_certificates": [pair]}
        if place.wire.http2:
            common["alpn_protocols"] = ["h2", "http/1.1"]
        chain["transport_socket"] = _transport("DownstreamTlsContext", {"common_tls_context": common})
    return {"name": "main", "address": _address(place.port), "filter_chains": [chain]}


def _manager(place: Place) -> dict[str, object]:
    """A file access log in the default format, one route."""
    log = {
        "@type": f"{_API}.access_loggers.file.v3.FileAccessLog",
        "path": str(place.access_log),
    }
    route = {"match": {"prefix": "/"}, "route": {"cluster": "app"}}
    router = {"@type": f"{_API}.filters.http.router.v3.Router"}
    return {
        "@type": f"{_API}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "main",
        "use_remote_address": True,
        "access_log": [{"name": "file", "typed_config": log}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": router}],
    }


def _cluster(place: Place) -> dict[str, object]:
    endpoint = {"endpoint": {"address": _address(place.upstream)}}
    cluster: dict[str, object] = {
        "name": "app",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "app", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    if place.wire.upstream_http2:
        http = f"{_API}.upstreams.http.v3.HttpProtocolOptions"
        options = {"@type": http, "explicit_http_config": {"http2_protocol_options": {}}}
        cluster["typed_extension_protocol_options"] = {http.partition("/")[2]: options}
    if place.wire.upstream_tls:
        # Towards upstreams its own maximum is TLS 1.2.
        name = {"san_type": "DNS", "matcher": {"exact": NAME}}
        common = {
            "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
            "validation_context": {
                "trusted_ca": {"filename": str(place.certificate.authority)},
                "match_typed_subject_alt_names": [name],
            },
        }
        context = {"sni": NAME, "common_tls_context": common}
        cluster["transport_socket"] = _transport("UpstreamTlsContext", context)
    return cluster


def _transport(kind: str, context: Mapping[str, object]) -> dict[str, object]:
    return {"name": "tls", "typed_config": {"@type": f"{_TLS}.{kind}", **context}}


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
