"""Drop-ins that change under a running process: what takes effect, when, and what goes on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.support.live import Live, free_port, listening_inode, until, until_steady
from tests.support.peers import Accepting, Answering, Stream, ask, response

HELLO = "[route hello]\npath = /hello\nrespond = 200 {}\n"


def _body(live: Live) -> bytes:
    return ask(live.port, "/hello").body


def _becomes(live: Live, body: bytes) -> None:
    until(lambda: _body(live) == body, f"/hello answers {body!r}")


def test_drop_in_takes_effect_within_a_second(live: Live) -> None:
    """From the moment it is written to the first answer by it; three seconds are for slow machines."""
    live.start(HELLO.format("old"))
    before = time.monotonic()
    (live.conf.path / "20-hello.ini").write_text(HELLO.format("new"))
    _becomes(live, b"new")
    taken = time.monotonic() - before
    print(f"a drop-in took effect after {taken:.3f} s")
    assert taken < 3.0


def test_bad_drop_in_is_told_once_and_the_old_configuration_serves_until_it_is_fixed(live: Live) -> None:
    """Refused once with file and line, however often the same mistake is saved; fixing it heals."""
    sidecar = live.start(HELLO.format("old"))
    live.conf.write("20-hello.ini", "[route hello]\nrespnd = 200 new\n")
    (event,) = sidecar.wait_event("reload_refused")
    (mistake,) = event["mistakes"]
    assert "20-hello.ini:2: [route hello] respnd: " in mistake
    assert "respond" in mistake
    assert _body(live) == b"old"
    live.conf.write("20-hello.ini", "[route hello]\nrespnd = 200 new\n")
    assert until_steady(lambda: len(sidecar.events("reload_refused")), "what is told", still=0.7) == 1
    live.conf.write("20-hello.ini", HELLO.format("new"))
    sidecar.wait_event("reload_applied")
    _becomes(live, b"new")
    assert len(sidecar.events("reload_refused")) == 1


def test_hup_reloads_and_answers_also_when_nothing_is_new(live: Live) -> None:
    """Whoever asks by signal is told how it ended."""
    sidecar = live.start(HELLO.format("old"))
    sidecar.signal(signal.SIGHUP)
    (event,) = sidecar.wait_event("reload_unchanged")
    # The watch of the folder looks by itself when it begins; a slow machine makes one answer of both.
    assert "HUP" in event["reason"].split(", ")
    live.conf.write("20-hello.ini", HELLO.format("new"))
    sidecar.signal(signal.SIGHUP)
    assert "HUP" in sidecar.wait_event("reload_applied")[0]["reason"]
    assert _body(live) == b"new"
    assert ask(live.port, "/hello").status == 200


def test_config_map_swap_takes_effect(live: Live) -> None:
    """Kubernetes swaps the link `..data` that all drop-ins go through; no drop-in itself is touched."""
    folder = live.conf.path
    for name, text in (("..one", "old"), ("..two", "new")):
        (folder / name).mkdir()
        (folder / name / "hello.ini").write_text(HELLO.format(text))
    (folder / "..data").symlink_to("..one")
    (folder / "hello.ini").symlink_to("..data/hello.ini")
    live.start()
    assert _body(live) == b"old"
    (folder / "..data_tmp").symlink_to("..two")
    os.rename(folder / "..data_tmp", folder / "..data")
    _becomes(live, b"new")


def test_editors_rename_takes_effect_and_its_leftovers_are_ignored(live: Live) -> None:
    """Editors write a file beside and rename it over; their swap and backup files are not read."""
    sidecar = live.start()
    live.conf.write("20-hello.ini", HELLO.format("old"))
    _becomes(live, b"old")
    folder = live.conf.path
    for leftover in (".20-hello.ini.swp", "20-hello.ini~", "#20-hello.ini#", "4913", ".#20-hello.ini"):
        (folder / leftover).write_text("this is no drop-in")
    (folder / "20-hello.ini.new").write_text(HELLO.format("new"))
    os.replace(folder / "20-hello.ini.new", folder / "20-hello.ini")
    _becomes(live, b"new")
    assert sidecar.events("reload_refused") == []


def test_removed_drop_in_takes_its_effect_back(live: Live) -> None:
    """What it said is gone, and what it overrode is back."""
    live.start(HELLO.format("base"))
    live.conf.write("20-hello.ini", HELLO.format("over") + "[route extra]\npath = /extra\nrespond = 200 x\n")
    _becomes(live, b"over")
    assert ask(live.port, "/extra").status == 200
    live.conf.remove("20-hello.ini")
    _becomes(live, b"base")
    assert ask(live.port, "/extra").status == 404


def test_listeners_come_and_go_and_unchanged_ones_keep_socket_and_connections(live: Live) -> None:
    """A second listener appears, moves and disappears; the first keeps its socket and its client."""
    sidecar = live.start(HELLO.format("hi"))
    inode = listening_inode(live.port)
    assert inode
    first, second = free_port(), free_port()
    with Stream.connect(live.port) as kept:
        assert kept.ask("GET", "/hello").body == b"hi"
        live.conf.write("30-more.ini", f"[listener more]\nbind = 127.0.0.1:{first}\n")
        until(lambda: listening_inode(first), "the new listener")
        with Stream.connect(first) as moved:
            assert moved.ask("GET", "/hello").body == b"hi"
            live.conf.write("30-more.ini", f"[listener more]\nbind = 127.0.0.1:{second}\n")
            until(lambda: listening_inode(second) and not listening_inode(first), "the listener moves")
            assert ask(second, "/hello").body == b"hi"
            assert moved.is_ended()
        live.conf.remove("30-more.ini")
        until(lambda: not listening_inode(second), "the listener goes")
        with pytest.raises(ConnectionRefusedError):
            ask(second, "/hello")
        assert kept.ask("GET", "/hello").body == b"hi"
    assert listening_inode(live.port) == inode
    assert len(sidecar.wait_event("reload_applied", 3)) == 3


def test_listener_that_cannot_be_bound_refuses_the_reload_whole(live: Live) -> None:
    """A port in use is a mistake with its place; the rest of the same change has no effect either."""
    sidecar = live.start(HELLO.format("old"))
    with Accepting() as other:
        live.conf.write("30-more.ini", f"[listener more]\nbind = {other.address}\n" + HELLO.format("new"))
        (event,) = sidecar.wait_event("reload_refused")
        assert "30-more.ini:2: [listener more] bind: " in event["mistakes"][0]
        assert "in use" in event["mistakes"][0]
        assert _body(live) == b"old"
    sidecar.signal(signal.SIGHUP)
    sidecar.wait_event("reload_applied")
    assert _body(live) == b"new"


def test_address_that_grows_is_given_back_when_the_reload_is_refused(live: Live) -> None:
    """127.0.0.1:P must close for 0.0.0.0:P; when another listener then fails, it is there again."""
    sidecar = live.start(HELLO.format("hi"))
    wide = f"[listener public]\nbind = 0.0.0.0:{live.port}\n"
    with Accepting() as other, Stream.connect(live.port) as kept:
        assert kept.ask("GET", "/hello").body == b"hi"
        live.conf.write("30-wide.ini", f"{wide}[listener taken]\nbind = {other.address}\n")
        (event,) = sidecar.wait_event("reload_refused")
        assert len(event["mistakes"]) == 1
        assert "30-wide.ini:4: [listener taken] bind: " in event["mistakes"][0]
        assert _body(live) == b"hi"
        assert kept.ask("GET", "/hello").body == b"hi"
    live.conf.write("30-wide.ini", wide)
    sidecar.wait_event("reload_applied")
    assert sidecar.events("listener_bound")[-1]["address"] == f"0.0.0.0:{live.port}"
    assert _body(live) == b"hi"


def test_access_log_that_cannot_be_written_refuses_the_reload(live: Live) -> None:
    """It is a mistake with a place like any other, and lines go on where they went."""
    sidecar = live.start(HELLO.format("hi"))
    live.conf.write("30-log.ini", "[sidecar]\naccess_log = /nowhere/at/all/access.log\n")
    (event,) = sidecar.wait_event("reload_refused")
    assert "30-log.ini:2: [sidecar] access_log: /nowhere/at/all/access.log: " in event["mistakes"][0]
    assert _body(live) == b"hi"
    assert sidecar.wait_exchanges(1)[0]["status"] == 200


def test_swapped_upstream_gets_what_is_new_while_the_old_one_finishes(live: Live, tmp_path: Path) -> None:
    """An exchange that began at the old server ends there with its whole body."""
    config = "[upstream app]\nserver.a = {}\n[route app]\nupstream = app\n"
    with Accepting() as old, Answering(lambda _: response(b"from the new one")) as new:
        sidecar = live.start(config.format(old.address))
        with Stream.connect(live.port) as slow:
            slow.send(b"GET /slow HTTP/1.1\r\nHost: test\r\n\r\n")
            with old.accept() as server:
                server.read_message()
                server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nfrom")
                assert slow.read_head().status == 200
                live.conf.write("10-test.ini", config.format(new.address))
                sidecar.wait_event("reload_applied")
                assert ask(live.port, "/").body == b"from the new one"
                server.send(b" old")
                assert slow.read(8) == b"from old"
                # The connection goes on, at the new server; the old one is not kept.
                assert slow.ask("GET", "/next").body == b"from the new one"
                assert server.is_ended()
