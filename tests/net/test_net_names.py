"""Names that are watched: when they are asked for, what is kept, what is told, and what is left of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from sidecar.config.addresses import Address
from sidecar.net import name_files, names
from sidecar.net import resolver as resolver_module
from sidecar.net.lookup import Looked
from sidecar.net.names import Found, Name, Names, pause
from sidecar.net.resolver import AT_ONCE
from sidecar.runtime import Random, SystemClock, Tasks
from tests.support.dns import DnsServer
from tests.support.streams import TIMEOUT, settle, wait_until

NAME = "app.example"
SERVICE = "_http._tcp.app.example"


class Watched:
    """The names of a process, and what it tells and loses."""

    def __init__(self, *servers: str) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.died: list[tuple[str, BaseException]] = []
        self.tasks = Tasks(lambda task, error: self.died.append((task, error)))
        self.names = Names(self.tasks, SystemClock(), Random(1), self._event, servers)

    def _event(self, name: str, /, **fields: Any) -> None:
        self.told.append((name, fields))

    def events(self, name: str) -> list[dict[str, Any]]:
        return [fields for told, fields in self.told if told == name]

    def watch(self, host: str = NAME, port: int = 80) -> Name:
        name = self.names.watch(host, port)
        assert name.wait(TIMEOUT)
        return name


@pytest.fixture(scope="module", autouse=True)
def threads() -> None:
    """The pool of threads has descriptors of its own, which stay."""
    gevent.get_hub().threadpool.apply(len, ("",))


@pytest.fixture
def server(threads: None, no_leaks: None) -> Iterator[DnsServer]:
    with DnsServer() as server:
        server.set(NAME, "A", "10.0.0.1", "10.0.0.2")
        yield server


@pytest.fixture
def watched(server: DnsServer, hosts: Path) -> Iterator[Watched]:
    watched = Watched(server.address)
    yield watched
    watched.tasks.stop()
    assert watched.died == []


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hosts file, looked at often; a resolv.conf may be put beside it."""
    monkeypatch.setattr(name_files, "HOSTS", str(tmp_path / "hosts"))
    monkeypatch.setattr(name_files, "RESOLV_CONF", str(tmp_path / "resolv.conf"))
    monkeypatch.setattr(names, "FILES_EVERY", 0.02)
    (tmp_path / "hosts").write_text("")
    return tmp_path / "hosts"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds are hundredths."""
    for name, seconds in (("SHORTEST", 0.01), ("LONGEST", 0.02), ("FIRST_RETRY", 0.01), ("LAST_RETRY", 0.02)):
        monkeypatch.setattr(names, name, seconds)


def shown(name: Name) -> list[str]:
    return [str(found.address) for found in name.found]


# -- answers


def test_a_name_is_found_in_the_background(server: DnsServer, watched: Watched) -> None:
    server.hold()
    name = watched.names.watch(NAME, 80)
    assert name.found == ()
    assert not name.wait(0.01)
    server.be_well()
    assert name.wait(TIMEOUT)
    assert name.found == tuple(Found(Address(f"10.0.0.{at}", 80), 0, 1, NAME) for at in (1, 2))
    assert name.error == ""
    addresses = ["10.0.0.1:80", "10.0.0.2:80"]
    assert watched.told == [
        ("dns_changed", {"name": f"{NAME}:80", "added": addresses, "removed": [], "addresses": 2})
    ]


def test_a_name_is_one_object_however_often_it_is_watched(server: DnsServer, watched: Watched) -> None:
    name = watched.watch()
    assert watched.names.watch("App.Example", 80) is name
    assert watched.names.watch(NAME, 81) is not name
    assert server.count(NAME, "A") <= 2


def test_a_service_is_watched_like_a_host(server: DnsServer, watched: Watched) -> None:
    server.set(SERVICE, "SRV", f"10 5 8080 {NAME}.")
    name = watched.names.watch_service(SERVICE)
    assert name is watched.names.watch_service(SERVICE)
    assert name.wait(TIMEOUT)
    assert name.found == tuple(Found(Address(f"10.0.0.{at}", 8080), 10, 5, NAME) for at in (1, 2))
    assert str(name) == f"srv:{SERVICE}"


def test_an_answer_that_grows_old_is_asked_for_again(
    quick: None, server: DnsServer, watched: Watched
) -> None:
    name = watched.watch()
    server.set(NAME, "A", "10.0.0.2", "10.0.0.3")
    wait_until(lambda: shown(name) == ["10.0.0.2:80", "10.0.0.3:80"])
    asked = server.count(NAME)
    wait_until(lambda: server.count(NAME) > asked + 4)
    assert [fields for name, fields in watched.told if name != "dns_changed"] == []
    assert watched.events("dns_changed")[1:] == [
        {"name": f"{NAME}:80", "added": ["10.0.0.3:80"], "removed": ["10.0.0.1:80"], "addresses": 2}
    ]


def test_a_weight_that_changes_is_a_change(quick: None, server: DnsServer, watched: Watched) -> None:
    server.set(SERVICE, "SRV", f"10 5 8080 {NAME}.")
    name = watched.names.watch_service(SERVICE)
    assert name.wait(TIMEOUT)
    server.set(SERVICE, "SRV", f"10 6 8080 {NAME}.")
    wait_until(lambda: {found.weight for found in name.found} == {6})
    assert watched.events("dns_changed")[1]["added"] == []


@pytest.mark.parametrize(
    ("looked", "failures", "longest"),
    [
        (Looked("", 30), 0, 30.0),
        (Looked("", 100_000), 0, 3600.0),
        (Looked("x", 30), 1, 1.0),
        (Looked("x", 30), 4, 8.0),
        (Looked("x", 30), 6, 30.0),
        (Looked("x", 30), 10_000, 30.0),
    ],
)
def test_it_is_asked_for_a_little_early_and_not_by_all_at_once(
    looked: Looked, failures: int, longest: float
) -> None:
    random = Random(7)
    pauses = [pause(looked, failures, random) for _ in range(200)]
    assert 0.9 * longest <= min(pauses) < 0.92 * longest
    assert 0.98 * longest < max(pauses) <= longest


@pytest.mark.parametrize("ttl", [0, 1])
def test_nobody_is_asked_more_than_once_a_second(ttl: int) -> None:
    assert pause(Looked("", ttl), 0, Random(7)) == 1.0


# -- failures


@pytest.mark.parametrize("failure", ["SERVFAIL", "NXDOMAIN", "REFUSED", "silence", "nothing"])
def test_the_last_good_answer_is_kept_and_the_failure_told_once(
    quick: None, monkeypatch: pytest.MonkeyPatch, server: DnsServer, watched: Watched, failure: str
) -> None:
    name = watched.watch()
    if failure == "silence":
        monkeypatch.setattr(resolver_module, "LIFETIME", 0.02)
        monkeypatch.setattr(resolver_module, "_SHORTEST_TRY", 0.01)
        server.be_silent()
    elif failure == "nothing":
        server.set(NAME, "A")
    else:
        server.refuse(failure)
    wait_until(lambda: name.error)
    asked = server.count()
    wait_until(lambda: server.count() > asked + 6)
    assert shown(name) == ["10.0.0.1:80", "10.0.0.2:80"]
    (failed,) = watched.events("dns_failed")
    assert (failed["name"], failed["kept"]) == (f"{NAME}:80", 2)
    assert {"silence": "no answer", "nothing": "no addresses"}.get(failure, failure) in failed["error"]
    assert watched.events("dns_recovered") == []
    server.set(NAME, "A", "10.0.0.2")
    server.be_well()
    monkeypatch.setattr(resolver_module, "LIFETIME", 5.0)
    wait_until(lambda: shown(name) == ["10.0.0.2:80"])
    assert name.error == ""
    (recovered,) = watched.events("dns_recovered")
    assert recovered["name"] == f"{NAME}:80"
    assert recovered["seconds"] > 0


def test_a_name_that_does_not_resolve_yet_is_waited_for_and_found_later(
    quick: None, server: DnsServer, watched: Watched
) -> None:
    name = watched.watch("late.example")
    assert name.found == ()
    assert name.error == "no such name (NXDOMAIN)"
    server.set("late.example", "A", "10.0.0.9")
    wait_until(lambda: shown(name) == ["10.0.0.9:80"])
    assert [told for told, _ in watched.told] == ["dns_failed", "dns_recovered", "dns_changed"]
    assert watched.events("dns_failed")[0]["kept"] == 0


def test_retries_are_further_and_further_apart(
    monkeypatch: pytest.MonkeyPatch, server: DnsServer, watched: Watched
) -> None:
    pauses: list[int] = []

    def remember(_looked: Looked, failures: int, _random: Random) -> float:
        pauses.append(failures)
        return 0.001

    monkeypatch.setattr(names, "pause", remember)
    name = watched.watch("none.example")
    wait_until(lambda: pauses[:4] == [1, 2, 3, 4])
    server.set("none.example", "A", "10.0.0.9")
    wait_until(lambda: not name.error)
    wait_until(lambda: pauses[-1] == 0)


def test_new_targets_that_are_not_known_do_not_take_the_known_ones_away(
    quick: None, server: DnsServer, watched: Watched
) -> None:
    server.set(SERVICE, "SRV", f"10 5 8080 {NAME}.")
    name = watched.names.watch_service(SERVICE)
    assert name.wait(TIMEOUT)
    server.set(SERVICE, "SRV", "10 5 8080 new.example.")
    wait_until(lambda: name.error)
    assert shown(name) == ["10.0.0.1:8080", "10.0.0.2:8080"]
    server.set("new.example", "A", "10.0.0.3")
    wait_until(lambda: shown(name) == ["10.0.0.3:8080"])


# -- subscribers


def test_subscribers_are_called_after_each_change(server: DnsServer, watched: Watched) -> None:
    name = watched.watch()
    seen: list[list[str]] = []

    def changed() -> None:
        seen.append(shown(name))

    name.subscribe(changed)
    name.ask_again()
    asked = server.count(NAME, "A")
    wait_until(lambda: server.count(NAME, "A") > asked)
    settle()
    assert seen == []
    server.set(NAME, "A", "10.0.0.3")
    name.ask_again()
    wait_until(lambda: seen == [["10.0.0.3:80"]])
    name.unsubscribe(changed)
    name.unsubscribe(changed)
    server.set(NAME, "A", "10.0.0.4")
    name.ask_again()
    wait_until(lambda: shown(name) == ["10.0.0.4:80"])
    settle()
    assert len(seen) == 1


def test_who_has_left_before_the_word_came_hears_nothing(server: DnsServer, watched: Watched) -> None:
    name = watched.watch()
    heard: list[str] = []

    def first() -> None:
        heard.append("first")
        name.unsubscribe(second)

    def second() -> None:
        heard.append("second")

    name.subscribe(first)
    name.subscribe(second)
    server.set(NAME, "A", "10.0.0.3")
    name.ask_again()
    wait_until(lambda: heard)
    settle()
    assert heard == ["first"]


def test_a_name_that_is_closed_tells_nobody(server: DnsServer, watched: Watched) -> None:
    name = watched.watch()
    heard: list[str] = []
    name.subscribe(name.close)
    name.subscribe(lambda: heard.append("after the end"))
    server.set(NAME, "A", "10.0.0.3")
    name.ask_again()
    wait_until(is_over(watched))
    assert heard == []


def test_asking_again_takes_the_place_of_what_was_planned(server: DnsServer, watched: Watched) -> None:
    name = watched.watch()
    wait_until(lambda: server.count(NAME) == 2)
    for _ in range(10):
        name.ask_again()
    wait_until(lambda: server.count(NAME) == 4)
    settle()
    server.hold()
    name.ask_again()
    wait_until(lambda: server.held == 2)
    for _ in range(10):
        name.ask_again()
    server.be_well()
    wait_until(lambda: server.count(NAME) == 8)
    settle()
    assert server.count(NAME) == 8
    assert len(watched.names.agenda._due) == 1


def test_a_subscriber_that_fails_or_blocks_stops_nobody_else(server: DnsServer, watched: Watched) -> None:
    name = watched.watch()
    called: list[None] = []

    def fails() -> None:
        raise RuntimeError("mine")

    name.subscribe(fails)
    name.subscribe(lambda: gevent.sleep(TIMEOUT))
    name.subscribe(lambda: called.append(None))
    server.set(NAME, "A", "10.0.0.3")
    name.ask_again()
    wait_until(lambda: len(called) == 1)
    server.set(NAME, "A", "10.0.0.4")
    name.ask_again()
    wait_until(lambda: len(called) == 2)
    assert [(task, str(error)) for task, error in watched.died] == [("name_changed", "mine")] * 2
    watched.died.clear()


def test_a_name_outlives_what_nobody_thought_of(
    monkeypatch: pytest.MonkeyPatch, quick: None, server: DnsServer, watched: Watched
) -> None:
    name = watched.watch()

    def broken(_: object) -> Looked:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(name.subject, "look", broken)
        wait_until(lambda: len(watched.died) > 1)
    server.set(NAME, "A", "10.0.0.3")
    wait_until(lambda: shown(name) == ["10.0.0.3:80"])
    watched.died.clear()


# -- many names


def test_many_names_are_asked_for_a_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch, server: DnsServer, watched: Watched
) -> None:
    read: list[None] = []

    def count(*args: Any) -> Any:
        read.append(None)
        return name_files.read_files(*args)

    monkeypatch.setattr(names, "FILES_EVERY", 60.0)
    monkeypatch.setattr(names, "read_files", count)
    for at in range(300):
        server.set(f"h{at}.example", "A", f"10.0.1.{at % 250}")
    server.hold()
    many = [watched.names.watch(f"h{at}.example", 80) for at in range(300)]
    wait_until(lambda: server.held == AT_ONCE)
    settle()
    assert server.held == AT_ONCE
    server.be_well()
    assert all(name.wait(TIMEOUT) for name in many)
    assert {len(name.found) for name in many} == {1}
    assert len(read) == 1


# -- the files of the machine


def test_a_hosts_file_that_changes_is_noticed(server: DnsServer, watched: Watched, hosts: Path) -> None:
    name, other = watched.watch(), watched.watch(NAME, 81)
    quiet = watched.watch("localhost")
    before = quiet.found
    replace(hosts, f"10.9.9.9 {NAME}\n")
    wait_until(lambda: shown(name) == ["10.9.9.9:80"] and shown(other) == ["10.9.9.9:81"])
    replace(hosts, "")
    wait_until(lambda: len(name.found) == len(other.found) == 2)
    assert quiet.found == before


def test_name_servers_that_change_are_asked(
    monkeypatch: pytest.MonkeyPatch, server: DnsServer, hosts: Path
) -> None:
    monkeypatch.setattr(name_files, "_PORT", server.port)
    resolv_conf = hosts.with_name("resolv.conf")
    replace(resolv_conf, "nameserver 127.0.0.1\nsearch other\noptions ndots:1 attempts:1\n")
    server.set("app.other", "A", "10.0.0.7")
    watched = Watched()
    name = watched.watch("app")
    assert shown(name) == ["10.0.0.7:80"]
    replace(resolv_conf, "nameserver 127.0.0.1\nsearch example\n")
    wait_until(lambda: len(name.found) == 2)
    watched.tasks.stop()


def replace(file: Path, text: str) -> None:
    """As editors do: there is no moment without the file."""
    new = file.with_name("new")
    new.write_text(text)
    os.replace(new, file)


# -- ends


def is_over(watched: Watched) -> Callable[[], bool]:
    return lambda: len(watched.tasks._group) == 0


def test_a_name_ends_with_its_last_watcher(quick: None, server: DnsServer, watched: Watched) -> None:
    name = watched.watch()
    assert watched.names.watch(NAME, 80) is name
    name.close()
    asked = server.count()
    wait_until(lambda: server.count() > asked + 4)
    called: list[None] = []
    name.subscribe(lambda: called.append(None))
    name.close()
    wait_until(is_over(watched))
    assert watched.names.watch(NAME, 80) is not name
    assert called == []


def test_a_name_that_is_closed_while_it_is_asked_for_leaves_nothing(
    server: DnsServer, watched: Watched
) -> None:
    server.set(SERVICE, "SRV", f"10 5 8080 {NAME}.")
    server.hold("A", "AAAA")
    many = [watched.names.watch(NAME, at) for at in range(1, 40)]
    service = watched.names.watch_service(SERVICE)
    wait_until(lambda: server.held == AT_ONCE)
    for name in [*many, service]:
        name.close()
    wait_until(is_over(watched))
    server.be_well()
    assert shown(watched.watch()) == ["10.0.0.1:80", "10.0.0.2:80"]


def test_a_name_that_is_closed_at_once_was_never_asked_for(server: DnsServer, watched: Watched) -> None:
    watched.names.watch(NAME, 80).close()
    wait_until(is_over(watched))
    assert not server.asked


def test_a_subscriber_may_close_the_name(server: DnsServer, watched: Watched) -> None:
    server.hold()
    name = watched.names.watch(NAME, 80)
    name.subscribe(name.close)
    server.be_well()
    wait_until(is_over(watched))


def test_the_end_of_the_process_ends_all(server: DnsServer, watched: Watched) -> None:
    server.hold()
    for at in range(1, 80):
        watched.names.watch(NAME, at)
    wait_until(lambda: server.held == AT_ONCE)
    watched.tasks.stop()
    assert is_over(watched)()


# -- as it runs


_PATCHED = """
from gevent import monkey
monkey.patch_all()
import sys
import gevent
from sidecar.net.names import Names
from sidecar.runtime import Random, SystemClock, Tasks
assert "dns" not in sys.modules
names = Names(Tasks(print), SystemClock(), Random(1), lambda *_, **__: None, [sys.argv[1]])
many = [names.watch("app.example", port) for port in range(1, 100)]
assert all(name.wait(10) for name in many)
print(many[-1].found[0].address, many[-1].error, "dns.query" in sys.modules)
"""


def test_it_works_with_the_cooperative_library_and_imports_what_it_needs_late(server: DnsServer) -> None:
    told = subprocess.run(
        [sys.executable, "-c", _PATCHED, server.address],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert told.stdout.split() == ["10.0.0.1:99", "False"]
    assert told.stderr == ""


def test_a_name_server_that_is_no_address_is_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"dns\.example"):
        Watched("dns.example")
