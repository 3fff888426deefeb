"""Upstream sections: servers with their parameters, how one is chosen, bounds, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.config.addresses import Address
from sidecar.config.merge import load
from sidecar.config.schema import options
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
    assert str(settings.balance) == "round_robin"
    assert (settings.sticky, settings.sticky_key) == ("", "")
    assert (settings.queue, settings.queue_timeout, settings.retry_budget) == (100, 5.0, 20)
    server = settings.server["a"]
    assert (server.weight, server.max_fails, server.fail_timeout) == (1, 1, 10.0)
    assert (server.max_connections, server.slow_start, server.backup, server.down) == (0, 0.0, False, False)


def test_a_server_has_parameters_in_any_order(tmp_path: Path) -> None:
    text = "h:1 down weight=2 slow_start=30s max_fails=0 backup fail_timeout=1m max_connections=7"
    server = upstream(tmp_path, f"{HERE}server.b = {text}\n").server["b"]
    assert server == Server(Address("h", 1), 2, 0, 60.0, 7, 30.0, True, True)
    assert str(server) == (
        "h:1 weight=2 max_fails=0 fail_timeout=1m max_connections=7 slow_start=30s backup down"
    )


@pytest.mark.parametrize(
    "text",
    [
        "round_robin",
        "least_connections",
        "ip_hash",
        "random_two",
        "least_time",
        "hash {request_uri}",
        "hash {request_uri} consistent",
        "hash {header.x-user}{path} consistent",
    ],
)
def test_a_way_to_choose_is_shown_as_it_is_written(tmp_path: Path, text: str) -> None:
    balance = upstream(tmp_path, f"{HERE}balance = {text}\n").balance
    assert str(balance) == text
    assert balance.consistent == text.endswith("consistent")
    assert (balance.key is not None) == text.startswith("hash")


@pytest.mark.parametrize("balance", ["round_robin", "least_connections", "least_time"])
def test_backups_go_with_what_asks_servers_in_turn(tmp_path: Path, balance: str) -> None:
    settings = upstream(tmp_path, f"{HERE}server.b = h:1 backup\nbalance = {balance}\n")
    assert settings.server["b"].backup


def test_sticky_clients_have_a_cookie_and_may_have_a_key(tmp_path: Path) -> None:
    settings = upstream(tmp_path, f"{HERE}sticky = cookie id\nsticky_key = s3cret\n")
    assert (settings.sticky, settings.sticky_key) == ("id", "s3cret")
    assert options(UpstreamSettings)["sticky_key"].is_secret
    assert upstream(tmp_path, f"{HERE}sticky = off\n").sticky == ""


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
            HERE + "server.b = h:1 back\n",
            "3: [upstream app] server.b: 'back' is not a parameter of a server: did you mean backup?",
        ),
        (
            HERE + "server.b = h:1 backup=yes\n",
            "3: [upstream app] server.b: backup= takes no value: write the word alone",
        ),
        (
            HERE + "server.b = h:1 max_connections=0\n",
            "3: [upstream app] server.b: max_connections= 0 is not between 1 and 1000000",
        ),
        (
            "[upstream app]\nserver.a = h:1 backup\n",
            "1: [upstream app] server: has backups only: let one be no backup",
        ),
        (
            HERE + "server.b = h:1 backup\nbalance = ip_hash\n",
            "3: [upstream app] server.b: balance = ip_hash has no use for a backup: drop the word",
        ),
        (
            HERE + "server.b = h:1 backup\nbalance = hash {path}\n",
            "3: [upstream app] server.b: balance = hash has no use for a backup",
        ),
        (
            HERE + "server.b = h:1 backup\nbalance = random_two\n",
            "3: [upstream app] server.b: balance = random_two has no use for a backup",
        ),
        (
            HERE + "balance = least_conn\n",
            "3: [upstream app] balance: 'least_conn' is not a way to choose: write round_robin, least_conn",
        ),
        (HERE + "balance = ip_hash consistent\n", "3: [upstream app] balance: 'ip_hash consistent' is not a"),
        (HERE + "balance = hash\n", "3: [upstream app] balance: hash needs a key: write hash {client_ip}"),
        (HERE + "balance = hash abc\n", "3: [upstream app] balance: 'abc' is the same for every request"),
        (HERE + "balance = hash consistent\n", "3: [upstream app] balance: 'consistent' is the same for"),
        (HERE + "balance = hash {pfad}\n", "3: [upstream app] balance: '{pfad}' is not a variable"),
        (HERE + "sticky = id\n", "3: [upstream app] sticky: 'id' is no way to stay with a server"),
        (HERE + "sticky = cookie a b\n", "3: [upstream app] sticky: 'cookie a b' is no way to stay"),
        (HERE + "sticky = cookie a;b\n", "3: [upstream app] sticky: 'cookie a;b' is no way to stay"),
        (HERE + "sticky = cookie\n", "3: [upstream app] sticky: 'cookie' is no way to stay"),
        (HERE + "queue = -1\n", "3: [upstream app] queue: "),
        (HERE + "keepalive = 10001\n", "3: [upstream app] keepalive: 10001 is not between 0 and 10000"),
        (HERE + "connect_timeout = 0s\n", "3: [upstream app] connect_timeout: '0s' leaves no time at all"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        upstream(tmp_path, text)
    (mistake,) = error.value.mistakes
    assert mistake.startswith(f"{tmp_path}/a.ini:{message}")


@pytest.mark.parametrize(
    ("text", "idle"),
    [
        (
            "sticky_key = x",
            ["sticky_key: signs nothing without sticky: write sticky = cookie NAME, or drop it"],
        ),
        ("sticky = cookie id\nsticky_key = x", []),
        (
            "server.b = h:1 max_fails=0 fail_timeout=1s",
            ["server.b: fail_timeout= has no use with max_fails=0"],
        ),
        (
            "server.b = h:1 slow_start=9s\nbalance = hash {path}\nhealth_check = tcp",
            ["server.b: slow_start= has no use with balance = hash: drop it"],
        ),
        (
            "server.b = h:1 max_fails=0 slow_start=9s",
            ["server.b: slow_start= has no use with max_fails=0: add health_check or eject_…, or drop it"],
        ),
        ("server.b = h:1 slow_start=9s", []),
        ("server.b = h:1 max_fails=0 slow_start=9s\neject_errors = 5", []),
        ("server.b = h:1 max_fails=0 slow_start=9s\nhealth_check = tcp", []),
        ("keepalive = 9\nkeepalive_timeout = 9s", []),
        (
            "send_proxy = v2",
            [f"{key}: no connection is kept with send_proxy" for key in ("keepalive", "keepalive_timeout")],
        ),
        ("keepalive = 0", ["keepalive_timeout: no connection is kept with keepalive = 0"]),
        ("retry_budget = 30%\nretry_attempts = 1", ["retry_budget: has no use with retry_attempts = 1"]),
        ("retry_budget = off\nretry_on = off", ["retry_budget: has no use with retry_on = off"]),
        ("health_rise = 5", ["health_rise: does nothing without health_check"]),
        ("eject_time = 1s", ["eject_time: does nothing without eject_errors, eject_error_rate or eject_lat"]),
        (
            "eject_errors = 1\neject_max = 33%\nserver.b = 127.0.0.1:2\nserver.c = 127.0.0.1:3",
            ["eject_max: is less than one of 3 servers: write at least 34%"],
        ),
        ("eject_errors = 1\neject_max = 34%\nserver.b = 127.0.0.1:2\nserver.c = 127.0.0.1:3", []),
        ("eject_errors = 1\neject_max = 1%\nserver.b = h:2", []),
        ("eject_errors = 1\neject_max = 1%\nserver.b = srv:h", []),
        (
            "queue = 7\nqueue_timeout = 7s",
            [f"{key}: nobody waits for servers without max_conn" for key in ("queue", "queue_timeout")],
        ),
        ("queue = 7\nqueue_timeout = 7s\nserver.b = h:1 max_connections=9", []),
        (
            "queue = 0\nqueue_timeout = 7s\nserver.b = h:1 max_connections=9",
            ["queue_timeout: nobody waits with queue = 0"],
        ),
        ("breaker_probes = 2", ["breaker_probes: has no use without breaker_failures or breaker_errors"]),
        ("concurrency_min = 2", ["concurrency_min: has no use without concurrency_limit = adaptive"]),
    ],
)
def test_what_does_nothing_beside_the_others(tmp_path: Path, text: str, idle: list[str]) -> None:
    found = [f"{key}: {why}" for key, why in upstream(tmp_path, f"{HERE}{text}\n").idle()]
    assert len(found) == len(idle)
    assert all(one.startswith(start) for one, start in zip(found, idle, strict=True)), found


def test_the_manual_goes_from_what_one_writes_first_to_what_few_need() -> None:
    first = ["server", "balance", "sticky", "connect_timeout", "keepalive", "retry_on", "health_check"]
    first += ["eject_errors", "queue", "breaker_failures", "concurrency_limit"]
    assert [key for key in options(UpstreamSettings) if key in first] == first
