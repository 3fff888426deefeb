"""The life of the process: its logs, its signals, its reloads and its end."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from sidecar import app, demo, process
from sidecar.app import prepare
from sidecar.config.merge import Configuration, load
from sidecar.errors import ConfigurationError
from sidecar.process import Process
from sidecar.settings import SECTIONS
from tests.support.certificates import Authority, Files
from tests.support.streams import FakeServer, Peer, ServerSide, outcome, start, wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")

PUBLIC = "[listener public]\nbind = 127.0.0.1:0\n"
HELLO = "[route hello]\nrespond = 200 hello\n"


class FakeWriter:
    """A log in memory, with the interface of a Writer."""

    def __init__(self, world: World, target: str, on_problem: Any) -> None:
        if target in world.unwritable:
            raise PermissionError(13, "Permission denied")
        if target in world.talkative:
            on_problem("log_dropped", target=target)
        self.target = target
        self.on_problem = on_problem
        self.is_terminal = target in world.terminals
        self.lines: list[bytes] = []
        self.reopened = 0
        self.closed = 0
        self.withdrawn = 0

    def write(self, line: bytes) -> None:
        self.lines.append(line)

    def reopen(self) -> None:
        self.reopened += 1

    def withdraw(self) -> None:
        self.withdrawn += 1

    def close(self, timeout: float) -> bool:
        self.closed += 1
        return True


class World:
    """What a process meets: its directory, its logs and its limits."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.writers: list[FakeWriter] = []
        self.terminals: set[str] = set()
        self.unwritable: set[str] = set()
        self.talkative: set[str] = set()
        self.limits = (1024, 1024)
        self.exits: list[int] = []
        self.handlers: dict[int, Any] = {}
        monkeypatch.setattr(process, "Writer", self._writer)
        monkeypatch.setattr(resource, "getrlimit", lambda _: self.limits)
        monkeypatch.setattr(resource, "setrlimit", lambda _, limits: setattr(self, "limits", limits))
        monkeypatch.setattr(os, "_exit", self.exits.append)
        monkeypatch.setattr(gevent, "signal_handler", self._handle)
        monkeypatch.setattr(signal, "signal", self._handle)

    def _writer(self, target: str, *, on_problem: Any) -> FakeWriter:
        writer = FakeWriter(self, target, on_problem)
        self.writers.append(writer)
        return writer

    def _handle(self, number: int, handler: Any, *args: Any) -> None:
        self.handlers[number] = (handler, *args)

    def signal(self, number: signal.Signals) -> None:
        handler, *args = self.handlers[number]
        handler(*args)

    def load(self, text: str) -> Configuration:
        (self.directory / "a.ini").write_text(text)
        return load(self.directory, SECTIONS, {})

    def process(self, text: str = PUBLIC + HELLO) -> Process:
        return Process(self.directory, self.load(text))

    def run(self, text: str = PUBLIC + HELLO) -> Any:
        """A process that serves, and the greenlet it runs in."""
        running = self.process(text)
        greenlet = start(running.run, prepare(self.load(text)))
        wait_until(lambda: self.told("started") or greenlet.dead)
        return running, greenlet

    def writer(self, target: str) -> FakeWriter:
        (writer,) = [writer for writer in self.writers if writer.target == target]
        return writer

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.writer("stderr").lines if line.startswith(b"{")]

    def told(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.events() if event["event"] == name]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    yield World(tmp_path, monkeypatch)
    # The watch reads in a thread, which may be at it still, with a file open.
    gevent.get_hub().threadpool.join()


def connect(running: Process, listener: str = "public") -> Peer:
    (address,) = running._application.addresses()[listener]
    sock = socket.socket()
    sock.connect((address.host, address.port))
    return Peer(sock)


def ask(peer: Peer) -> bytes:
    peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    head = peer.read_until(b"\r\n\r\n")
    return head + peer.read(int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]))


# -- logs


@pytest.mark.parametrize("target", ["stdout", "/var/log/access.log"])
def test_the_access_log_goes_where_it_is_told(world: World, target: str) -> None:
    world.process(f"[sidecar]\naccess_log = {target}\n")
    assert [writer.target for writer in world.writers] == ["stderr", target]


def test_no_access_log_opens_nothing(world: World) -> None:
    running = world.process("[sidecar]\naccess_log = off\n")
    assert running._access is None
    assert [writer.target for writer in world.writers] == ["stderr"]


def test_logs_of_one_target_share_one_way_out(world: World) -> None:
    world.process("[sidecar]\naccess_log = stderr\n")
    assert [writer.target for writer in world.writers] == ["stderr"]


def test_an_access_log_that_cannot_be_opened_is_a_mistake_with_its_place(world: World) -> None:
    world.unwritable.add("/log/access")
    with pytest.raises(ConfigurationError) as caught:
        world.process("[sidecar]\n\naccess_log = /log/access\n")
    assert caught.value.mistakes == [
        f"{world.directory}/a.ini:3: [sidecar] access_log: /log/access: uid {os.geteuid()} may not write it: "
        "change the permissions of it or of its directory"
    ]


@pytest.mark.parametrize(
    ("fmt", "terminal", "is_json"),
    [
        ("auto", False, True),
        ("auto", True, False),
        ("json", True, True),
        ("console", False, False),
    ],
)
def test_a_person_gets_words_and_a_machine_json(
    world: World, fmt: str, terminal: bool, is_json: bool
) -> None:
    world.terminals = {"stderr"} if terminal else set()
    running = world.process(f"[sidecar]\nlog_format = {fmt}\n")
    running._event("started")
    assert world.writer("stderr").lines[0].startswith(b"{") == is_json


def test_each_log_looks_at_its_own_target(world: World) -> None:
    world.terminals = {"stdout"}
    running, greenlet = world.run()
    peer = connect(running)
    ask(peer)
    wait_until(lambda: world.writer("stdout").lines)
    assert not world.writer("stdout").lines[0].startswith(b"{")
    assert world.told("started")
    peer.close()
    world.signal(signal.SIGTERM)
    outcome(greenlet)


def test_trouble_with_a_log_is_an_event(world: World) -> None:
    world.process()
    world.writer("stdout").on_problem("log_failed", target="stdout", error="full")
    assert world.told("log_failed")[0]["error"] == "full"


def test_trouble_with_the_first_log_comes_too_early_to_be_told(world: World) -> None:
    world.talkative.add("stderr")
    world.process()
    assert world.events() == []


def test_a_task_that_dies_is_told_in_the_format_of_today(world: World) -> None:
    running = world.process()
    running._apply(prepare(world.load("[sidecar]\nlog_format = console\n")))

    def die() -> None:
        raise ValueError("on purpose")

    running._tasks.spawn("reload", die)
    wait_until(lambda: world.writer("stderr").lines)
    assert b" task_died task=reload\n" in world.writer("stderr").lines[0]


# -- reloads


def test_a_reload_moves_the_logs(world: World) -> None:
    running = world.process()
    running._apply(prepare(world.load("[sidecar]\naccess_log = /log/b\nlog_format = console\n")))
    running._event("started")
    assert [writer.target for writer in world.writers] == ["stderr", "stdout", "/log/b"]
    assert not world.writer("stderr").lines[0].startswith(b"{")
    running._apply(prepare(world.load("[sidecar]\naccess_log = off\n")))
    assert running._access is None


@pytest.mark.parametrize(
    "text",
    ["[sidecar]\naccess_log = /log/b\n", "[sidecar]\naccess_log = off\n[route a]\nupstream = nobody\n"],
)
def test_a_reload_that_fails_leaves_the_logs_alone(world: World, text: str) -> None:
    running = world.process()
    before = running._access, running._events, running._settings
    world.unwritable.add("/log/b")
    with pytest.raises(ConfigurationError):
        running._apply(prepare(world.load(text)))
    assert (running._access, running._events, running._settings) == before


def test_what_a_thread_reads_arrives_whole(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    running = world.process()
    assert running._load().configuration.fingerprint
    (world.directory / "a.ini").write_text("[nonsense]\n")
    with pytest.raises(ConfigurationError):
        running._load()
    assert capsys.readouterr().err == ""


def test_a_configuration_that_was_read_as_the_process_was_told_to_end_is_not_served(world: World) -> None:
    running = world.process()
    prepared = prepare(world.load(PUBLIC + HELLO))
    running._on_stop()
    with pytest.raises(ConfigurationError, match="the process ends"):
        running._apply(prepared)
    assert running._application.addresses() == {}


# -- limits and signals


def test_the_soft_limit_of_descriptors_is_raised_to_the_hard_one(world: World) -> None:
    world.limits = (1024, 4096)
    running = world.process()
    assert running._raise_descriptors() == 4096
    assert world.limits == (4096, 4096)
    (told,) = world.told("descriptors_raised")
    assert (told["soft"], told["hard"]) == (1024, 4096)


def test_a_limit_that_is_raised_already_is_no_news(world: World) -> None:
    world.limits = (4096, 4096)
    assert world.process()._raise_descriptors() == 4096
    assert world.told("descriptors_raised") == []


def test_who_asks_twice_does_not_want_to_wait(world: World) -> None:
    running = world.process()
    running._on_stop()
    assert world.exits == []
    running._on_stop()
    assert world.exits == [1]


def test_a_rotation_concerns_the_access_log_that_is_written_now(world: World) -> None:
    running = world.process("[sidecar]\naccess_log = /log/a\n")
    running._apply(prepare(world.load("[sidecar]\naccess_log = /log/b\n")))
    running._reopen()
    assert [(writer.target, writer.reopened) for writer in world.writers] == [
        ("stderr", 0),
        ("/log/a", 0),
        ("/log/b", 1),
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it(world: World, number: signal.Signals) -> None:
    _, greenlet = world.run()
    world.signal(number)
    assert outcome(greenlet) == 0


def test_other_signals_do_what_is_expected_of_them(world: World) -> None:
    running, greenlet = world.run(PUBLIC + HELLO + "[sidecar]\naccess_log = /log/a\n")
    world.signal(signal.SIGUSR1)
    assert world.writer("/log/a").reopened == 1
    assert world.handlers[signal.SIGPIPE] == (signal.SIG_IGN,)
    (world.directory / "a.ini").write_text(PUBLIC + HELLO + "[route b]\npath = /b\nrespond = 200\n")
    world.signal(signal.SIGHUP)
    wait_until(lambda: world.told("reload_applied"))
    assert "HUP" in world.told("reload_applied")[0]["reason"]
    world.signal(signal.SIGTERM)
    outcome(greenlet)


def test_readiness_knows_of_reloads_and_of_the_end(world: World) -> None:
    running, greenlet = world.run()
    readiness = running._application.readiness
    assert (readiness.is_serving, readiness.is_draining, list(readiness.refused)) == (True, False, [])
    (world.directory / "a.ini").write_text("[sidecar]\nlog_level = loud\n")
    wait_until(lambda: readiness.refused)
    assert "log_level: 'loud' is not one of" in readiness.refused[0]
    (world.directory / "a.ini").write_text(PUBLIC + HELLO)
    wait_until(lambda: not readiness.refused)
    world.signal(signal.SIGTERM)
    assert readiness.is_draining
    outcome(greenlet)


class Blind:
    """A watch that sees nothing."""

    def __init__(self, *_: Any) -> None:
        pass

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass


def test_hup_looks_at_certificates_that_nobody_reports(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "Watch", Blind)
    authority = Authority()
    files = Files(tmp_path / "tls", authority.issue("a.example"))
    _, greenlet = world.run(f"{PUBLIC}tls = site\n[certificate site]\n{files.options}{HELLO}")
    files.rename(authority.issue("a.example"))
    world.signal(signal.SIGHUP)
    wait_until(lambda: world.told("certificate_renewed") and world.told("reload_unchanged"))
    world.signal(signal.SIGTERM)
    outcome(greenlet)


# -- from the start to the end


def test_a_life(world: World) -> None:
    running, greenlet = world.run()
    peer = connect(running)
    assert ask(peer).endswith(b"hello")
    world.signal(signal.SIGTERM)
    assert peer.read_all() == b""
    peer.close()
    assert outcome(greenlet) == 0
    names = [event["event"] for event in world.events()]
    assert names == ["listener_bound", "started", "draining", "listener_closed", "drained", "stopped"]
    assert world.told("drained")[0]["cut_off"] == 0
    assert world.told("started")[0]["conf"] == str(world.directory)
    assert [writer.closed for writer in world.writers] == [1, 1]


def test_who_asks_as_the_process_ends_hears_so_in_the_answer(world: World) -> None:
    running, greenlet = world.run()
    asks, idles = connect(running), connect(running)
    ask(asks)
    ask(idles)
    world.signal(signal.SIGTERM)
    wait_until(lambda: world.told("listener_closed"))
    assert b"\r\nConnection: close\r\n" in ask(asks)
    assert idles.read_all() == b""
    assert outcome(greenlet) == 0
    assert world.told("drained")[0]["cut_off"] == 0
    asks.close()
    idles.close()


def test_no_upgrade_begins_when_the_process_ends(world: World) -> None:
    running, greenlet = world.run()
    peer = connect(running)
    ask(peer)
    world.signal(signal.SIGTERM)
    wait_until(lambda: world.told("draining"))
    world.signal(signal.SIGUSR2)
    assert world.told("upgrade_ignored")[0]["reason"] == "the process ends"
    assert peer.read_all() == b""
    assert outcome(greenlet) == 0
    peer.close()


def test_signals_that_were_held_back_until_now_arrive(world: World) -> None:
    held = {signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
    signal.pthread_sigmask(signal.SIG_BLOCK, held)
    _, greenlet = world.run()
    assert held.isdisjoint(signal.pthread_sigmask(signal.SIG_BLOCK, []))
    world.signal(signal.SIGTERM)
    outcome(greenlet)


class FakeInit:
    """Stands for the duties of process 1."""

    def __init__(self) -> None:
        self.passed: list[int] = []

    def pass_on(self, number: signal.Signals) -> None:
        self.passed.append(number)

    def run(self) -> int:
        return 5


def test_process_1_passes_on_what_it_is_told_after_it_has_handed_over(world: World) -> None:
    running = world.process()
    running._init = init = FakeInit()  # type: ignore[assignment]
    acted: list[str] = []
    running._on_signal(signal.SIGHUP, lambda: acted.append("hup"))
    assert (init.passed, acted) == ([], ["hup"])
    running.has_handed_over = True
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1):
        running._on_signal(number, running._on_stop if number == signal.SIGTERM else running._reopen)
    running._on_signal(signal.SIGUSR2, running._upgrade.request)
    # It cannot leave those who are still there, and an upgrade is the business of the newest.
    assert world.exits == []
    assert world.told("upgrade_ignored") == []
    assert init.passed == [15, 15, 10, 12]
    assert running.remain() == 5


def test_what_does_not_finish_in_time_is_cut_off_and_counted(world: World) -> None:
    reached: list[ServerSide] = []

    def keep_silent(side: ServerSide) -> None:
        side.read_request()
        reached.append(side)

    server = FakeServer(keep_silent)
    running, greenlet = world.run(
        PUBLIC
        + f"[upstream app]\nserver.a = {server.address}\n[route app]\nupstream = app\n"
        + "[sidecar]\ndrain_timeout = 0s\n"
    )
    peer = connect(running)
    peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    wait_until(lambda: reached)
    world.signal(signal.SIGTERM)
    assert outcome(greenlet) == 0
    assert peer.read_all() == b""
    assert world.told("drained")[0]["cut_off"] == 1
    peer.close()
    server.close()


def test_a_start_that_fails_serves_nothing_and_handles_no_signals(world: World) -> None:
    running = world.process()
    with pytest.raises(ConfigurationError):
        running.run(prepare(world.load(PUBLIC + "[route a]\nupstream = nobody\n")))
    assert running._application.addresses() == {}
    assert world.handlers == {}
    assert [writer.withdrawn for writer in world.writers] == [1, 1]


class FakeDemo:
    def __init__(self) -> None:
        self.address = ""
        self.stopped = 0

    def start(self, address: str, sock: Any) -> FakeDemo:
        self.address = address
        return self

    def stop(self) -> None:
        self.stopped += 1


def test_the_demo_lives_as_long_as_the_process(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeDemo()
    monkeypatch.setattr(demo, "start", fake.start)
    world.load(PUBLIC + HELLO)
    greenlet = start(process.run, world.directory, True)
    wait_until(lambda: world.writers and world.told("started"))
    assert (fake.address, fake.stopped) == ("127.0.0.1:8000", 0)
    world.signal(signal.SIGTERM)
    assert outcome(greenlet) == 0
    assert fake.stopped == 1


def test_mistakes_come_before_anything_is_served(world: World) -> None:
    (world.directory / "a.ini").write_text("[nonsense]\n")
    with pytest.raises(ConfigurationError):
        process.run(world.directory, False)
    assert world.writers == []
