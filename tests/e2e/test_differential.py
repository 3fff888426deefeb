"""The same bytes through nginx and through the sidecar: whatever differs is on purpose, and says why.

Law: a difference that is not declared fails, and so does a declared one that no longer occurs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.e2e import differential_malformed as malformed
from tests.e2e import differential_requests as requests
from tests.e2e import differential_responses as responses
from tests.e2e.differential_cases import Case
from tests.e2e.differential_differences import DIFFERENCES
from tests.support.differential_exchange import (
    PROBE_STATUS,
    Aspects,
    Manner,
    client_aspects,
    converse,
    upstream_aspects,
)
from tests.support.differential_proxies import nginx, refusing_address, sidecar
from tests.support.differential_upstream import TIMEOUT, RecordingUpstream
from tests.support.live import free_port

CASES: list[Case] = [
    *requests.METHODS,
    *requests.TARGETS,
    *requests.FIELDS,
    *requests.HOP_BY_HOP,
    *requests.BODIES,
    *requests.EXPECT,
    *requests.CONNECTIONS,
    *malformed.MALFORMED,
    *malformed.PREFIXES,
    *malformed.OWN,
    *responses.RESPONSES,
    *responses.RESPONSE_FIELDS,
    *responses.UNUSABLE,
    *responses.CUT,
    *responses.STRAYS,
    *responses.UPGRADES,
]

#: Seconds for an nginx that is known to hang.
_SHORTLY = 0.5

_NGINX = """\
    server_tokens off;
    large_client_header_buffers 4 8k;
    absolute_redirect off;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    upstream app {{ server 127.0.0.1:{upstream}; keepalive 8; }}
    upstream down {{ server {down}; }}

    proxy_http_version 1.1;
    proxy_buffering off;
    proxy_request_buffering off;
    proxy_redirect off;
    proxy_pass_trailers on;
    early_hints 1;
    lingering_timeout 100ms;
    proxy_pass_header Date;
    proxy_pass_header Server;
    proxy_set_header Host $http_host;
    proxy_set_header Connection "";
    proxy_set_header X-Real-IP $remote_addr;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Forwarded-Host $http_host;
    proxy_set_header X-Forwarded-Port $server_port;

    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://app; }}
        location /buffered/ {{ proxy_pass http://app; proxy_buffering on; proxy_request_buffering on; }}
        location /slow {{ proxy_pass http://app; proxy_read_timeout 200ms; }}
        location /small {{ proxy_pass http://app; client_max_body_size 1k; }}
        location /strip/ {{ proxy_pass http://app/; }}
        location /to-v2/ {{ proxy_pass http://app/v2/; }}
        location /bare {{ proxy_pass http://app/; }}
        location /down {{ proxy_pass http://down; }}
        location /ws {{
            proxy_pass http://app;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header Host $http_host;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Forwarded-Port $server_port;
        }}
        location = /nowhere {{ return 404; }}
        location = /text {{ default_type "text/plain; charset=utf-8"; return 200 "OK"; }}
        location = /empty {{ return 204; }}
        location = /old-page {{ return 301 /new-page; }}
        location /secure/ {{ return 301 https://$host$request_uri; }}
        location = /still-open {{ return {probe} "open"; }}
    }}
"""

_SIDECAR = """\
[sidecar]
access_log = off
drain_timeout = 0s

[listener main]
bind = 127.0.0.1:{port}

[upstream app]
server.a = 127.0.0.1:{upstream}

[upstream down]
server.a = {down}

[route all]
upstream = app

[route still-open]
path = /still-open
respond = {probe} open

[route buffered]
path_prefix = /buffered
upstream = app
buffering = on

[route slow]
path_prefix = /slow
upstream = app
read_timeout = 200ms

[route small]
path_prefix = /small
upstream = app
max_body_size = 1k

[route strip]
path_prefix = /strip
upstream = app
replace_prefix = /

[route to-v2]
path_prefix = /to-v2
upstream = app
replace_prefix = /v2

[route bare]
path_prefix = /bare
upstream = app
replace_prefix = /

[route down]
path_prefix = /down
upstream = down

[route nowhere]
path = /nowhere
respond = 404

[route text]
path = /text
respond = 200 OK

[route empty]
path = /empty
respond = 204

[route old-page]
path = /old-page
redirect = 301 /new-page

[route secure]
path_prefix = /secure
redirect = 301 https://{{host}}{{request_uri}}
"""


class Stage(NamedTuple):
    """Both proxies and the upstream behind them."""

    upstream: RecordingUpstream
    nginx: int
    sidecar: int

    def run(self, case: Case, port: int) -> Aspects:
        """What the case looks like through the proxy on `port`."""
        self.upstream.play(case.scripts)
        patience = _SHORTLY if case.nginx_hangs and port == self.nginx else TIMEOUT
        manner = Manner(case.methods, case.probe, patience, self.upstream.client_is_done.set)
        conversation = converse(port, case.steps, manner)
        names = {b"%d" % port: b"(own)", b"127.0.0.1:%d" % self.upstream.port: b"(server)"}
        return upstream_aspects(self.upstream.recorded(), names) | client_aspects(conversation, own=case.own)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One nginx, one sidecar and one upstream for all cases."""
    upstream = RecordingUpstream()
    theirs, ours = free_port(), free_port()
    with refusing_address() as down:
        values = {"upstream": upstream.port, "down": down, "probe": PROBE_STATUS}
        with (
            nginx(_NGINX.format(port=theirs, **values), theirs, tmp_path_factory.mktemp("nginx")),
            sidecar(_SIDECAR.format(port=ours, **values), ours, tmp_path_factory.mktemp("sidecar")),
        ):
            yield Stage(upstream, theirs, ours)
    upstream.stop()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_sidecar_does_what_nginx_does(stage: Stage, case: Case) -> None:
    """Or the table of differences says what else it does, and why."""
    theirs, ours = stage.run(case, stage.nginx), stage.run(case, stage.sidecar)
    found = {
        aspect: (theirs[aspect], ours[aspect])
        for aspect in theirs.keys() & ours.keys()  # a missing message shows in the numbers of messages
        if theirs[aspect] != ours[aspect]
    }
    declared = {one.aspect: (one.nginx, one.sidecar) for one in DIFFERENCES.get(case.name, ())}
    assert found == declared, _told(found, declared)


def _told(found: dict[str, tuple[object, object]], declared: dict[str, tuple[object, object]]) -> str:
    lines = []
    for aspect in sorted(found | declared):
        if found.get(aspect) != declared.get(aspect):
            nginx, sidecar = found.get(aspect, ("the same", "the same"))
            lines.append(f"{aspect}:\n  nginx   {nginx!r}\n  sidecar {sidecar!r}")
            if aspect in declared:
                lines.append("  declared {!r}\n       and {!r}".format(*declared[aspect]))
    return "\n".join(lines)


def test_every_declared_difference_has_a_case_and_a_reason() -> None:
    """The table holds nothing that is never looked at."""
    names = [case.name for case in CASES]
    assert len(names) == len(set(names)) >= 60
    assert set(DIFFERENCES) <= set(names)
    assert all(one.why.endswith(".") for group in DIFFERENCES.values() for one in group)
