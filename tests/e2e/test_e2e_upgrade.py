"""USR2: a new process takes over the listening sockets, and no client notices."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.support.heirs import Line, Load, is_alive
from tests.support.live import Live, listening_inode, until
from tests.support.peers import Accepting, Stream, ask

HELLO = "[route hello]\npath = /hello\nrespond = 200 hello\n"
QUICK = "[sidecar]\ndrain_timeout = 2s\n"


def start(live: Live, config: str = HELLO + QUICK, *arguments: str, listener: str = "", **how: Any) -> Line:
    """A sidecar that serves, with its first listener at `live.port`."""
    live.conf.write("10-test.ini", config)
    live.conf.write("00-listener.ini", f"[listener public]\nbind = 127.0.0.1:{live.port}{listener}\n")
    line = Line(live, *arguments, **how)
    line.serving()
    return line


def sockets(pid: int) -> set[str]:
    """The sockets that a process has open."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        target = os.readlink(entry)
        if target.startswith("socket:"):
            found.add(target)
    return found


def test_an_upgrade_under_load_loses_nothing(live: Live) -> None:
    """10,000 requests, half of them on kept connections, across two upgrades: no error at all."""
    line = start(live)
    inode = listening_inode(live.port)
    load = Load(live.port)
    try:
        load.wait(3_000)
        first, second = line.serving(), line.upgrade()
        assert line.wait_exit() == 0
        by_then = load.done
        load.wait(by_then + 2_000)
        third = line.upgrade()
        until(lambda: not is_alive(second), "the second process ends")
        load.wait(max(load.done + 1_000, 10_000))
    finally:
        load.stop()
        print(f"requests {load.done}, closes {load.closes}, errors {len(load.errors)}")
    assert load.errors == []
    assert load.done >= 10_000
    assert load.closes >= 8
    assert len({first, second, third}) == 3
    assert listening_inode(live.port) == inode
    assert [event["cut_off"] for event in line.events("drained")] == [0, 0]


def test_unix_sockets_and_chosen_ports_stay_where_they_are(live: Live) -> None:
    path = live.folder / "public.sock"
    line = start(live, listener=f", unix:{path}, 127.0.0.1:0")
    inode, port = path.stat().st_ino, int(line.events("listener_bound")[2]["address"].rpartition(":")[2])
    load = Load(str(path), kept=2, single=2)
    try:
        load.wait(200)
        heir = line.upgrade()
        assert line.wait_exit() == 0
        load.wait(load.done + 200)
    finally:
        load.stop()
    assert load.errors == []
    assert path.stat().st_ino == inode
    assert ask(port, "/hello").body == b"hello"
    assert [event["inherited"] for event in line.events("listener_bound")[3:]] == [True] * 3
    os.kill(heir, signal.SIGTERM)
    until(lambda: not is_alive(heir), "the new process ends")
    assert not path.exists()


def test_an_idle_client_is_answered_once_more_and_a_slow_answer_arrives_whole(live: Live) -> None:
    """The old process closes neither of them; the answer to the idle one says that it was the last."""
    with Accepting() as upstream:
        line = start(
            live, HELLO + f"[upstream app]\nserver.a = {upstream.address}\n[route app]\nupstream = app\n"
        )
        with Stream.connect(live.port) as idle, Stream.connect(live.port) as slow:
            assert "connection" not in idle.ask("GET", "/hello").fields
            slow.send(b"GET /slow HTTP/1.1\r\nHost: test\r\n\r\n")
            with upstream.accept() as server:
                server.read_message()
                server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
                assert slow.read_head().status == 200
                line.upgrade()
                line.seen("upgrade_applied")
                last = idle.ask("GET", "/hello")
                assert (last.body, last.fields["connection"]) == (b"hello", "close")
                assert idle.is_ended()
                assert line.process.poll() is None
                server.send(b"world")
                assert slow.read(10) == b"helloworld"
                last = slow.ask("GET", "/hello")
                assert (last.body, last.fields["connection"]) == (b"hello", "close")
        assert line.wait_exit() == 0
        assert ask(live.port, "/hello").body == b"hello"


def test_a_client_that_never_asks_again_does_not_keep_the_old_process(live: Live) -> None:
    line = start(live)
    with Stream.connect(live.port) as idle:
        idle.ask("GET", "/hello")
        line.upgrade()
        assert idle.is_ended()
        assert line.wait_exit() == 0
    assert line.events("drained")[0]["cut_off"] == 0


def test_a_change_that_comes_with_the_upgrade_is_served_by_the_new_process(live: Live) -> None:
    """What it drops is ended by the old one, what is new it binds itself."""
    path, new = live.folder / "old.sock", live.folder / "new.sock"
    line = start(live, listener=f", unix:{path}")
    live.conf.write("00-listener.ini", f"[listener public]\nbind = 127.0.0.1:{live.port}, unix:{new}\n")
    heir = line.upgrade()
    assert line.wait_exit() == 0
    assert not path.exists()
    assert ask(str(new), "/hello").body == b"hello"
    assert ask(live.port, "/hello").body == b"hello"
    assert [event["pid"] for event in line.events("upgrade_applied")] == [heir]
    assert line.events("reload_refused") == []


def test_an_address_that_the_old_process_is_in_the_way_of_fails_the_upgrade(live: Live) -> None:
    line = start(live)
    live.conf.write("00-listener.ini", f"[listener public]\nbind = 0.0.0.0:{live.port}\n")
    os.kill(line.pid, signal.SIGUSR2)
    line.seen("upgrade_failed")
    (complaint,) = line.complaints()
    assert complaint.endswith(
        f"00-listener.ini:2: [listener public] bind: 0.0.0.0:{live.port}: "
        "is in the way of the process that is replaced: reload that one first, then replace it"
    )
    # The old one makes the same change as soon as it is alone again.
    line.seen("reload_applied")
    assert ask(live.port, "/hello").body == b"hello"


def test_a_new_process_that_fails_leaves_the_old_one_as_it_was(live: Live) -> None:
    path = live.folder / "public.sock"
    line = start(live, listener=f", unix:{path}")
    with Stream.connect(live.port) as kept:
        kept.ask("GET", "/hello")
        live.conf.write("20-bad.ini", "[nonsense]\n")
        line.seen("reload_refused")
        os.kill(line.pid, signal.SIGUSR2)
        (failed,) = line.seen("upgrade_failed")
        assert failed["reason"] == "the new process exited with status 1 before it served"
        assert any("20-bad.ini:1: [nonsense]" in complaint for complaint in line.complaints())
        assert "connection" not in kept.ask("GET", "/hello").fields
    assert ask(str(path), "/hello").body == ask(live.port, "/hello").body == b"hello"
    live.conf.remove("20-bad.ini")
    line.seen("reload_unchanged")
    heir = line.upgrade()
    assert line.wait_exit() == 0
    assert heir == line.events("upgrade_applied")[0]["pid"]


def test_a_mistake_that_only_binding_shows_takes_nothing_from_the_old_process(live: Live) -> None:
    """The new process has taken over the socket file when it finds that another address is in use."""
    path = live.folder / "public.sock"
    with Accepting() as other:
        line = start(live, listener=f", unix:{path}")
        live.conf.write(
            "00-listener.ini",
            f"[listener public]\nbind = 127.0.0.1:{live.port}, unix:{path}, {other.address}\n",
        )
        os.kill(line.pid, signal.SIGUSR2)
        line.seen("upgrade_failed")
        assert ask(str(path), "/hello").body == ask(live.port, "/hello").body == b"hello"


def test_a_second_request_during_an_upgrade_is_told_and_ignored(live: Live) -> None:
    line = start(live)
    os.kill(line.pid, signal.SIGUSR2)
    line.seen("upgrade_started")
    os.kill(line.pid, signal.SIGUSR2)
    (ignored,) = line.seen("upgrade_ignored")
    assert ignored["reason"] == "another upgrade is in progress"
    line.serving(2)
    assert line.wait_exit() == 0
    assert len(line.events("upgrade_started")) == 1


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_during_an_upgrade_ends_both(live: Live, stop: signal.Signals) -> None:
    path = live.folder / "public.sock"
    line = start(live, listener=f", unix:{path}")
    os.kill(line.pid, signal.SIGUSR2)
    (started,) = line.seen("upgrade_started")
    os.kill(line.pid, stop)
    assert line.wait_exit() == 0
    assert not is_alive(started["pid"])
    assert not listening_inode(live.port)
    assert not path.exists()
    assert line.events("upgrade_applied") == []


def test_the_old_process_dies_during_an_upgrade_and_the_new_one_serves(live: Live) -> None:
    line = start(live)
    os.kill(line.pid, signal.SIGUSR2)
    line.seen("upgrade_started")
    line.process.kill()
    line.serving(2)
    assert ask(live.port, "/hello").body == b"hello"


def test_the_new_process_gets_the_listening_sockets_and_no_other(live: Live) -> None:
    mine, stray = socket.socketpair()
    line = start(live, inherit=[stray.fileno()])
    assert f"socket:[{os.fstat(stray.fileno()).st_ino}]" in sockets(line.pid)
    with mine, stray, Stream.connect(live.port) as kept:
        kept.ask("GET", "/hello")
        before = sockets(line.pid)
        heir = line.upgrade()
        assert sockets(heir) & before == {f"socket:[{listening_inode(live.port)}]"}
        variables = Path(f"/proc/{heir}/environ").read_bytes()
        assert b"SIDECAR_SOCKETS=" in variables
        kept.ask("GET", "/hello")
    assert line.wait_exit() == 0


def test_a_reload_and_a_rotation_work_after_an_upgrade(live: Live) -> None:
    log = live.folder / "access.log"
    line = start(live, HELLO + QUICK + f"[sidecar]\naccess_log = {log}\n")
    ask(live.port, "/hello?old")
    heir = line.upgrade()
    assert line.wait_exit() == 0
    until(lambda: b"?old" in log.read_bytes(), "the line of the old process")
    live.conf.write("20-bye.ini", "[route bye]\npath = /bye\nrespond = 200 bye\n")
    os.kill(heir, signal.SIGHUP)
    line.seen("reload_applied")
    assert ask(live.port, "/bye").body == b"bye"
    log.rename(live.folder / "access.log.1")
    os.kill(heir, signal.SIGUSR1)
    line.seen("log_reopened")
    ask(live.port, "/hello?new")
    until(lambda: b"?new" in log.read_bytes(), "the line of the new process")


def test_the_demo_goes_along(live: Live) -> None:
    config = QUICK + "[upstream demo]\nserver.a = 127.0.0.1:8000\n[route demo]\nupstream = demo\n"
    line = start(live, config, "--with-demo")
    load = Load(live.port, kept=2, single=2, target="/any")
    try:
        load.wait(100)
        line.upgrade()
        assert line.wait_exit() == 0
        load.wait(load.done + 100)
    finally:
        load.stop()
    assert load.errors == []
