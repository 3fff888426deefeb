"""The files of the machine: what they say of names, what their mistakes become, and when they are read."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sidecar.net import name_files
from sidecar.net.name_files import Files, Setup, parse_hosts, parse_resolv_conf, read_files, setup_of

FOUR, SIX = socket.AF_INET, socket.AF_INET6


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


def test_a_resolv_conf_is_understood() -> None:
    setup = parse_resolv_conf(
        lines("""
            # a comment
            ; another
            domain old.example
            search ns.svc.Cluster.local svc.cluster.local.
            nameserver 10.96.0.10
            nameserver fd00::53
            options ndots:5 timeout:2 attempts:3 rotate use-vc edns0
        """)
    )
    assert setup == Setup(
        servers=((FOUR, ("10.96.0.10", 53)), (SIX, ("fd00::53", 53, 0, 0))),
        search=("ns.svc.cluster.local", "svc.cluster.local"),
        ndots=5,
        timeout=2,
        attempts=3,
        rotate=True,
        use_tcp=True,
    )


def test_without_a_server_this_machine_is_asked() -> None:
    assert parse_resolv_conf([]) == Setup(servers=((FOUR, ("127.0.0.1", 53)),))


def test_what_a_resolv_conf_says_in_a_wrong_way_counts_as_not_said() -> None:
    setup = parse_resolv_conf(
        lines("""
            nameserver
            nameserver name.example
            nameserver 300.0.0.1
            options ndots:x timeout: attempts:-1 nothing
            unknown word
            search .
        """)
    )
    assert setup == parse_resolv_conf([])


def test_what_a_resolv_conf_asks_for_is_bounded() -> None:
    setup = parse_resolv_conf(
        [
            *(f"nameserver 10.0.0.{at}" for at in range(1, 9)),
            "search " + " ".join(f"d{at}.example" for at in range(100)),
            "options ndots:99 timeout:9999999999999 attempts:0",
        ]
    )
    assert len(setup.servers) == 3
    assert len(setup.search) == 16
    assert (setup.ndots, setup.timeout, setup.attempts) == (15, 30, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.2", (FOUR, ("10.0.0.2", 53))),
        ("10.0.0.2:5353", (FOUR, ("10.0.0.2", 5353))),
        ("fd00::53", (SIX, ("fd00::53", 53, 0, 0))),
        ("[fd00::53]", (SIX, ("fd00::53", 53, 0, 0))),
        ("[fd00::53]:5353", (SIX, ("fd00::53", 5353, 0, 0))),
    ],
)
def test_a_server_that_is_named_is_an_address_with_or_without_a_port(text: str, expected: object) -> None:
    assert setup_of([text]) == Setup(servers=(expected,))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["", "dns.example", "dns.example:53", "10.0.0.2:0", "10.0.0.2:65536", "10.1:53", "a:b:c"]
)
def test_a_server_that_is_no_address_is_a_mistake(text: str) -> None:
    with pytest.raises(ValueError, match=".+"):
        setup_of([text])


def test_a_name_is_tried_as_it_is_or_with_what_is_searched_first() -> None:
    setup = Setup(servers=(), search=("one.example", "two.example"), ndots=2)
    assert setup.candidates("app") == ["app.one.example", "app.two.example", "app"]
    assert setup.candidates("a.b.c") == ["a.b.c", "a.b.c.one.example", "a.b.c.two.example"]
    assert setup.candidates("app.") == ["app."]
    assert Setup(servers=()).candidates("app") == ["app"]


def test_a_hosts_file_gives_all_addresses_of_the_names_that_are_wanted() -> None:
    found = parse_hosts(
        lines("""
            127.0.0.1 localhost
            10.0.0.1\tapp.example App  # other.example
            10.0.0.2 APP.example. app.example
            2001:DB8::1 app.example
            10.0.0.2 app.example
            fe80::1%eth0 app.example
            nonsense app.example
            # 10.0.0.9 app.example
            10.0.0.8
        """),
        frozenset({"app.example", "app", "none.example"}),
    )
    assert found == {"app.example": ("10.0.0.1", "10.0.0.2", "2001:db8::1"), "app": ("10.0.0.1",)}


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hosts file; the resolv.conf beside it."""
    monkeypatch.setattr(name_files, "HOSTS", str(tmp_path / "hosts"))
    monkeypatch.setattr(name_files, "RESOLV_CONF", str(tmp_path / "resolv.conf"))
    (tmp_path / "hosts").write_text("10.0.0.1 app.example\n10.0.0.2 web.example\n")
    (tmp_path / "resolv.conf").write_text("nameserver 10.0.0.53\n")
    return tmp_path / "hosts"


def test_files_that_did_not_change_are_not_read_again(hosts: Path) -> None:
    first = read_files(None, ["app.example"])
    assert first.hosts == {"app.example": ("10.0.0.1",)}
    assert first.setup.servers == ((FOUR, ("10.0.0.53", 53)),)
    assert read_files(None, ["app.example"], first) is first


def test_a_change_or_a_new_name_is_read(hosts: Path) -> None:
    first = read_files(None, ["app.example"])
    more = read_files(None, ["app.example", "web.example"], first)
    assert more.hosts["web.example"] == ("10.0.0.2",)
    hosts.with_name("new").write_text("10.0.0.3 app.example\n")
    os.replace(hosts.with_name("new"), hosts)
    changed = read_files(None, ["app.example"], more)
    assert changed.hosts == {"app.example": ("10.0.0.3",)}
    hosts.with_name("resolv.conf").write_text("nameserver 10.0.0.54\nsearch example\n")
    assert read_files(None, ["app.example"], changed).setup.search == ("example",)


def test_with_servers_that_are_named_the_resolv_conf_is_nobodys_business(hosts: Path) -> None:
    named = setup_of(["10.0.0.9"])
    first = read_files(named, ["app.example"])
    assert first.setup is named
    hosts.with_name("resolv.conf").write_text("nameserver 10.0.0.54\n")
    assert read_files(named, ["app.example"], first) is first


def test_files_that_are_missing_or_no_files_say_nothing(hosts: Path) -> None:
    hosts.unlink()
    os.mkfifo(hosts)  # reading it would never end
    hosts.with_name("resolv.conf").unlink()
    assert read_files(None, ["app.example"])._replace(marks=()) == Files(
        parse_resolv_conf([]), {}, frozenset({"app.example"}), ()
    )


def test_a_hosts_file_of_any_bytes_is_read(hosts: Path) -> None:
    hosts.write_bytes(b"\xff\xfe\0 app.example\n" + b"x" * 200_000 + b"\n10.0.0.1 app.example\n")
    assert read_files(None, ["app.example"]).hosts == {"app.example": ("10.0.0.1",)}
