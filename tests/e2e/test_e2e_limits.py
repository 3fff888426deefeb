"""What there is not enough of: connections, descriptors, memory for those who say nothing."""

from __future__ import annotations

import contextlib
import resource
import select
import time
from collections.abc import Iterator

import pytest

from tests.support.live import Live, until, until_steady
from tests.support.peers import Answering, Stream, request, response

HELLO = "[route hello]\npath = /hello\nrespond = 200 hello\n"
HEAD = request("GET", "/hello")
IDLE = 5_000
IDLE_COST = 12 * 1024


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many open files as this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _is_readable(stream: Stream, timeout: float) -> bool:
    return bool(select.select([stream.sock], [], [], timeout)[0])


def test_connection_beyond_the_limit_waits_and_is_served_when_one_leaves(live: Live) -> None:
    """The sixth of five gets no error: it waits in the kernel's queue."""
    sidecar = live.start("[sidecar]\nmax_connections = 5\n" + HELLO)
    with contextlib.ExitStack() as stack:
        five = [stack.enter_context(Stream.connect(live.port)) for _ in range(5)]
        for stream in five:
            assert stream.ask("GET", "/hello").status == 200
        sixth = stack.enter_context(Stream.connect(live.port))
        sixth.send(HEAD)
        used = sidecar.cpu()
        assert not _is_readable(sixth, 0.5)
        assert sidecar.cpu() - used < 0.2
        assert sidecar.wait_event("accept_paused")
        for stream in five:
            assert stream.ask("GET", "/hello").status == 200
        five[2].close()
        assert sixth.read_message().body == b"hello"


def test_limit_of_connections_moves_with_a_reload(live: Live) -> None:
    """Those that came before count: a larger limit lets in one more, a smaller one nobody before two left."""
    sidecar = live.start("[sidecar]\nmax_connections = 2\n" + HELLO)
    with contextlib.ExitStack() as stack:

        def come() -> Stream:
            stream = stack.enter_context(Stream.connect(live.port))
            stream.send(HEAD)
            return stream

        def limit(number: int) -> None:
            before = len(sidecar.events("reload_applied"))
            live.conf.write("30-limit.ini", f"[sidecar]\nmax_connections = {number}\n")
            sidecar.wait_event("reload_applied", before + 1)

        first, second, third, fourth = come(), come(), come(), come()
        assert first.read_message().body == second.read_message().body == b"hello"
        assert not _is_readable(third, 0.2)
        limit(3)
        assert third.read_message().body == b"hello"
        assert not _is_readable(fourth, 0.2)
        limit(2)
        first.close()
        assert not _is_readable(fourth, 0.2)
        second.close()
        assert fourth.read_message().body == b"hello"
        assert not _is_readable(come(), 0.2)


def test_running_out_of_descriptors_neither_spins_nor_kills(live: Live) -> None:
    """With 64 of them clients wait, the process rests, and all are served when others leave."""
    with Answering(lambda _: response(b"app")) as upstream:
        config = f"[upstream app]\nserver.a = {upstream.address}\n[route app]\nupstream = app\n"
        sidecar = live.start(config + HELLO, descriptors=64)
        with contextlib.ExitStack() as stack:
            streams = [stack.enter_context(Stream.connect(live.port)) for _ in range(100)]
            for stream in streams:
                stream.send(HEAD)
            sidecar.wait_event("accept_paused")
            until_steady(lambda: sum(_is_readable(stream, 0) for stream in streams), "those that get in")
            served = [stream for stream in streams if _is_readable(stream, 0)]
            assert 20 < len(served) < 64
            before, used = time.monotonic(), sidecar.cpu()
            until(lambda: time.monotonic() - before >= 1.0, "a second of rest")
            spent = sidecar.cpu() - used
            print(f"CPU of a second without descriptors: {spent:.2f} s")
            assert spent < 0.3
            for stream in served:
                assert stream.read_message().body == b"hello"
                assert stream.ask("GET", "/hello").body == b"hello"
            # A request that needs a descriptor more gets an answer too, if no good one.
            assert served[0].ask("GET", "/app").status in (200, 502, 503)
            for stream in served:
                stream.close()
            for stream in streams:
                if stream not in served:
                    assert stream.read_message().body == b"hello"
                    stream.close()
        sidecar.wait_event("accept_resumed")
        with Stream.connect(live.port) as client:
            assert client.ask("GET", "/app").body == b"app"
        assert sidecar.process.poll() is None
        assert sidecar.events("task_died") == sidecar.events("exchange_failed") == []


@pytest.mark.usefixtures("many_files")
@pytest.mark.alone
def test_idle_connection_costs_little_memory(live: Live) -> None:
    """5,000 keep-alive connections that have asked once, against none."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert hard > IDLE + 200, f"needs {IDLE + 200} open files, the hard limit is {hard}: raise it"
    sidecar = live.start("[sidecar]\naccess_log = off\n" + HELLO)
    _idle(live, 50)
    until(lambda: sidecar.pss() > 0, "a figure")
    before = sidecar.pss()
    streams: list[Stream] = []
    try:
        for _ in range(IDLE):
            stream = Stream.connect(live.port)
            streams.append(stream)
            assert stream.ask("GET", "/hello").status == 200
        cost = (until_steady(sidecar.pss, "memory at rest") - before) / IDLE
        print(f"an idle connection costs {cost:.0f} bytes; the process {before / 1e6:.1f} MB without any")
        assert cost <= IDLE_COST
        assert streams[0].ask("GET", "/hello").status == streams[-1].ask("GET", "/hello").status == 200
    finally:
        for stream in streams:
            stream.close()


def _idle(live: Live, count: int) -> None:
    """Let the process load and fill what it needs once."""
    for _ in range(count):
        with Stream.connect(live.port) as stream:
            assert stream.ask("GET", "/hello").status == 200
