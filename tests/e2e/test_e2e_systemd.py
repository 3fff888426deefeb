"""What a service manager is told, and the sockets it opens: sd_notify(3) and sd_listen_fds(3)."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.heirs import Line, Load, Manager, activation, is_alive
from tests.support.live import Live, listening_inode, until
from tests.support.peers import Stream, ask

HELLO = "[route hello]\npath = /hello\nrespond = 200 hello\n"


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    """One of either kind."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@sidecar-test-{os.getpid()}"
    with Manager(address) as manager:
        yield manager


def start(live: Live, manager: Manager, config: str = HELLO, **environment: str) -> Line:
    """A sidecar that tells `manager` what happens to it."""
    live.listen()
    live.conf.write("10-test.ini", config)
    return Line(live, environment={"NOTIFY_SOCKET": manager.address, **environment})


def test_the_life_of_the_process_is_told_in_its_order(live: Live, manager: Manager) -> None:
    line = start(live, manager, HELLO + "[sidecar]\ndrain_delay = 100ms\ndrain_timeout = 7s\n")
    sender, ready = manager.read()
    assert sender == line.pid
    assert ready == {"READY": "1", "STATUS": f"serving 127.0.0.1:{live.port}"}
    assert ask(live.port, "/hello").body == b"hello"

    def reload() -> tuple[int, str]:
        line.signal(signal.SIGHUP)
        _, begun = manager.expect("RELOADING")
        _, done = manager.expect("READY")
        return int(begun["MONOTONIC_USEC"]), done["STATUS"]

    first, status = reload()
    assert status == f"reload: nothing has changed, serving 127.0.0.1:{live.port}"
    live.conf.write("20-bad.ini", "[nonsense]\n[rubbish]\n")
    line.wait_event("reload_refused")
    manager.expect("STATUS")
    second, status = reload()
    assert status.startswith(f"reload refused: {live.conf.path}/20-bad.ini:1: [nonsense]")
    assert status.endswith(" (and 1 more)")
    assert second > first
    live.conf.remove("20-bad.ini")
    line.wait_event("reload_unchanged", 2)
    manager.expect("STATUS")
    live.conf.write("20-more.ini", "[listener more]\nbind = 127.0.0.1:0\n")
    line.signal(signal.SIGHUP)
    manager.expect("RELOADING")
    status = manager.expect("READY")[1]["STATUS"]
    assert status.startswith(f"serving 127.0.0.1:{live.port}, 127.0.0.1:")
    line.signal(signal.SIGTERM)
    _, stopping = manager.expect("STOPPING")
    assert 7_100_000 <= int(stopping["EXTEND_TIMEOUT_USEC"]) <= 15_000_000
    assert line.wait_exit() == 0
    assert manager.is_silent(0.05)


def test_a_name_that_is_not_known_yet_is_told_and_the_rest_is_served(live: Live, manager: Manager) -> None:
    nobody = "[sidecar]\nresolver = 127.0.0.1:1\n[upstream app]\nserver.a = app.example:80\n"
    start(live, manager, f"{HELLO}{nobody}[route app]\npath_prefix = /app\nupstream = app\n")
    _, ready = manager.read()
    assert ready["STATUS"] == f"serving 127.0.0.1:{live.port}; not resolved yet: app.example:80"
    assert ask(live.port, "/hello").body == b"hello"
    assert ask(live.port, "/app").status == 502


def test_a_manager_that_is_gone_disturbs_nothing(live: Live, manager: Manager) -> None:
    line = start(live, manager, WATCHDOG_USEC="200000")
    manager.expect("READY")
    manager.close()
    line.signal(signal.SIGHUP)
    line.wait_event("reload_unchanged")
    assert ask(live.port, "/hello").body == b"hello"
    line.signal(signal.SIGTERM)
    assert line.wait_exit() == 0
    assert line.complaints() == []


def test_a_process_that_is_stuck_gives_no_sign_of_life(live: Live, manager: Manager) -> None:
    """It pings at twice the rate that is wanted, and stops to when it is stopped."""
    line = start(live, manager, WATCHDOG_USEC="400000")
    manager.expect("READY")
    for _ in range(3):
        assert manager.read() == (line.pid, {"WATCHDOG": "1"})
    line.signal(signal.SIGSTOP)
    until(lambda: manager.is_silent(0.4), "silence")
    line.signal(signal.SIGCONT)
    assert manager.read() == (line.pid, {"WATCHDOG": "1"})


def test_the_watchdog_of_another_process_is_not_for_this_one(live: Live, manager: Manager) -> None:
    start(live, manager, WATCHDOG_USEC="20000", WATCHDOG_PID=str(os.getpid()))
    manager.expect("READY")
    assert manager.is_silent(0.2)


def test_an_upgrade_names_the_new_main_process_before_that_one_speaks(live: Live, manager: Manager) -> None:
    line = start(live, manager, HELLO + "[sidecar]\ndrain_timeout = 1s\n")
    first, _ = manager.expect("READY")
    with Stream.connect(live.port) as idle:
        idle.ask("GET", "/hello")
        second = line.upgrade()
        assert manager.read() == (first, {"MAINPID": str(second), "WATCHDOG": "1"})
        assert manager.read()[0] == second
        # The old one drains and ends without another word.
        assert line.wait_exit() == 0
    assert manager.is_silent(0.05)
    os.kill(second, signal.SIGTERM)
    assert manager.expect("STOPPING")[0] == second


def test_the_watchdog_goes_on_across_an_upgrade(live: Live, manager: Manager) -> None:
    line = start(live, manager, WATCHDOG_USEC="400000", WATCHDOG_PID="")
    manager.expect("READY")
    heir = line.upgrade()
    assert manager.expect("MAINPID")[1]["MAINPID"] == str(heir)
    manager.expect("READY")
    for _ in range(2):
        assert manager.read() == (heir, {"WATCHDOG": "1"})


# -- sockets of the manager


def listening(where: str = "") -> socket.socket:
    """A socket as a manager opens it: blocking, without options."""
    sock = socket.socket(socket.AF_UNIX if where else socket.AF_INET)
    sock.bind(where or ("127.0.0.1", 0))
    sock.listen()
    return sock


def test_sockets_of_the_manager_are_served_by_their_names(live: Live) -> None:
    """Two of one name, and a UNIX one; they stay open and where they are through reload, upgrade and end."""
    path = live.folder / "admin.sock"
    with listening() as one, listening() as two, listening(str(path)) as three:
        ports = [sock.getsockname()[1] for sock in (one, two)]
        inodes = [listening_inode(port) for port in ports]
        live.conf.write(
            "00.ini", "[listener web]\nbind = fd:web\n[listener admin]\nbind = fd:sidecar.socket\n"
        )
        live.conf.write("10.ini", HELLO + "[sidecar]\ndrain_timeout = 1s\n")
        words = activation([(one.fileno(), "web"), (three.fileno(), "sidecar.socket"), (two.fileno(), "web")])
        line = Line(live, prefix=words, inherit=[one.fileno(), two.fileno(), three.fileno()])
        line.serving()
        for where in (*ports, str(path)):
            assert ask(where, "/hello").body == b"hello"
        assert [event["address"] for event in line.events("listener_bound")] == [
            f"127.0.0.1:{ports[0]}",
            f"127.0.0.1:{ports[1]}",
            f"unix:{path}",
        ]
        # A reload drops one and takes it back.
        live.conf.write("00.ini", "[listener web]\nbind = fd:web\n")
        line.wait_event("reload_applied")
        with Stream.connect(str(path)) as waiting:
            waiting.send(b"GET /hello HTTP/1.1\r\nHost: test\r\n\r\n")
            live.conf.write("00.ini", "[listener all]\nbind = fd:web, fd:sidecar.socket\n")
            line.wait_event("reload_applied", 2)
            assert waiting.read_message().body == b"hello"
        load = Load(ports[1], kept=2, single=2)
        try:
            load.wait(100)
            heir = line.upgrade()
            assert line.wait_exit() == 0
            load.wait(load.done + 100)
        finally:
            load.stop()
        assert load.errors == []
        for where in (*ports, str(path)):
            assert ask(where, "/hello").body == b"hello"
        os.kill(heir, signal.SIGTERM)
        until(lambda: not is_alive(heir), "the end of the new process")
        assert path.exists()
        assert [listening_inode(port) for port in ports] == inodes
        # Who comes now waits for the next one that the manager starts.
        with Stream.connect(ports[0]) as early:
            early.send(b"GET /hello HTTP/1.1\r\nHost: test\r\n\r\n")


@pytest.mark.parametrize(
    ("bind", "advice"),
    [
        ("fd:wb", "fd:wb: no inherited socket has this name: write fd:web or fd:datagrams or fd:deaf"),
        ("fd:datagrams", "fd:datagrams: descriptor 4 is no TCP or UNIX stream socket: write ListenStream="),
        ("fd:deaf", "fd:deaf: descriptor 5 does not listen: write ListenStream= and Accept=no in its unit"),
    ],
)
def test_a_socket_that_cannot_be_served_is_a_mistake_with_its_place(
    live: Live, bind: str, advice: str
) -> None:
    with (
        listening() as web,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.socket() as deaf,
    ):
        given = {web.fileno(): "web", datagrams.fileno(): "datagrams", deaf.fileno(): "deaf"}
        live.conf.write("00.ini", f"[listener public]\nbind = {bind}\n")
        line = Line(live, prefix=activation(given), inherit=list(given))
        assert line.wait_exit() == 1
    (complaint,) = line.complaints()
    assert f"{live.conf.path}/00.ini:2: [listener public] bind: {advice}" in complaint


def test_names_without_a_manager_are_a_mistake(live: Live) -> None:
    live.conf.write("00.ini", "[listener public]\nbind = fd:web\n")
    line = Line(live, environment={"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"})
    assert line.wait_exit() == 1
    assert line.complaints() == [
        f"{live.conf.path}/00.ini:2: [listener public] bind: fd:web: no sockets were inherited: "
        "start sidecar by a socket unit with FileDescriptorName=web, or write host:port"
    ]


def test_variables_that_contradict_what_is_open_are_refused(live: Live) -> None:
    live.listen()
    line = Line(live, environment={"SIDECAR_SOCKETS": '{"control": 63, "named": [], "placed": []}'})
    assert line.wait_exit() == 1
    assert line.complaints() == [
        "descriptor 63 is no socket: Bad file descriptor: "
        "start sidecar without LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES, SIDECAR_SOCKETS"
    ]
