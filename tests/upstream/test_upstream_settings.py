"""Upstream sections: servers with their weights, bounds, and options that do not exist yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.config.addresses import Address
from sidecar.config.merge import load
from sidecar.errors import ConfigurationError
from sidecar.upstream.settings import Server, UpstreamSettings

HERE = "[upstream app]\nserver.a = 127.0.0.1:8001\n"


def upstream(directory: Path, text: str) -> UpstreamSettings:
    (directory / "a.ini").write_text(text)
    return load(directory, [UpstreamSettings], {}).named(UpstreamSettings)["app"]


def test_servers_keep_their_names_and_order(tmp_path: Path) -> None:
    settings = upstream(tmp_path, HERE + "server.B = unix:/run/app.sock weight=5\n")
    assert settings.server == {
        "a": Server(Address("127.0.0.1", 8001)),
        "B": Server(Address(path="/run/app.sock"), 5),
    }
    assert list(map(str, settings.server.values())) == ["127.0.0.1:8001", "unix:/run/app.sock weight=5"]


def test_defaults(tmp_path: Path) -> None:
    settings = upstream(tmp_path, HERE)
    assert (settings.connect_timeout, settings.send_timeout, settings.read_timeout) == (5.0, 60.0, 60.0)
    assert (settings.request_timeout, settings.tunnel_timeout) == (0.0, 3600.0)
    assert (settings.keepalive, settings.keepalive_timeout, settings.max_header_size) == (64, 60.0, 65536)
    assert settings.balance == "round_robin"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[upstream app]\n",
            "1: [upstream app] server: has no server: write at least one, server.a = 127.0.0.1:8000",
        ),
        (
            HERE + "server.b = 127.0.0.1:8001\n",
            "3: [upstream app] server.b: 127.0.0.1:8001 is server.a already",
        ),
        (
            HERE + "server.b = h:1 weight=0\n",
            "3: [upstream app] server.b: weight= 0 is not between 1 and 1000",
        ),
        (
            HERE + "server.b = h:1 backup\n",
            "3: [upstream app] server.b: 'backup' is not a parameter of a server: known are weight=",
        ),
        (HERE + "balance = least_time\n", "3: [upstream app] balance: 'least_time' is not round_robin"),
        (HERE + "keepalive = 10001\n", "3: [upstream app] keepalive: 10001 is not between 0 and 10000"),
        (HERE + "connect_timeout = 0s\n", "3: [upstream app] connect_timeout: '0s' leaves no time at all"),
        (HERE + "sticky = off\n", "3: [upstream app] sticky: is not a known option"),
        (HERE + "protocol = h2\n", "3: [upstream app] protocol: is not a known option"),
        (HERE + "retry_on = error\n", "3: [upstream app] retry_on: is not a known option"),
        (HERE + "health_check = tcp\n", "3: [upstream app] health_check: is not a known option"),
        (HERE + "tls_verify = on\n", "3: [upstream app] tls_verify: is not a known option"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        upstream(tmp_path, text)
    (mistake,) = error.value.mistakes
    assert mistake.startswith(f"{tmp_path}/a.ini:{message}")
