"""From upstream sections to handlers: what is shared, what is kept over reloads, and what is told."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.merge import load
from sidecar.errors import ConfigurationError, Failure
from sidecar.kept import Kept
from sidecar.message import Handler, Response
from sidecar.net.names import Names
from sidecar.routing.settings import RouteSettings
from sidecar.routing.values import Share
from sidecar.runtime import SystemClock, Tasks, World
from sidecar.upstream.breaker import Breaker
from sidecar.upstream.server import Server
from sidecar.upstream.settings import UpstreamSettings
from sidecar.upstream.trust import examine
from sidecar.upstream.trust_settings import TrustOptions
from sidecar.upstreams import Surroundings, Upstreams
from tests.support.certificates import Authority
from tests.support.http2_server import serving
from tests.support.streams import FakeServer, Script, ServerSide, outcome, settle, start, wait_until
from tests.support.upstreams import GET, OK, answer, request_of

pytestmark = pytest.mark.usefixtures("no_leaks")

ROUTE = RouteSettings(upstream=(Share("app"),))


class Process:
    """What upstreams live in: servers that play scripts, what is kept, and what was told."""

    def __init__(self, directory: Path, *scripts: list[Script]) -> None:
        self._directory = directory
        self.fakes = [FakeServer(*own) for own in scripts]
        self.kept = Kept()
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.problems: list[BaseException] = []
        self.tasks = Tasks(lambda name, error: self.problems.append(error))
        world = World(self.tasks, SystemClock(), random.Random(1), self._event)
        self.around = Surroundings(world, b"secret")

    def _event(self, name: str, **fields: Any) -> None:
        self.events.append((name, fields))

    def _names(self) -> Names:
        world = self.around.world
        return Names(world.tasks, world.clock, world.random, world.event)

    def told(self, name: str) -> list[dict[str, Any]]:
        return [fields for event, fields in self.events if event == name]

    def build(self, text: str) -> Upstreams:
        """A generation that does not serve yet. `{1}` is the address of the first server."""
        addresses = ["", *(str(fake.address) for fake in self.fakes)]
        (self._directory / "a.ini").write_text(text.format(*addresses))
        configuration = load(self._directory, [UpstreamSettings], {})
        settings = configuration.named(UpstreamSettings)
        trusts = examine(configuration)
        self.kept.begin()
        try:
            names = self.kept.claim("names", self._names)
            return Upstreams(settings, self.kept, names, self.around, trusts)
        except BaseException:
            self.kept.abandon()
            raise

    def serve(self, text: str) -> Upstreams:
        """A generation that serves."""
        made = self.build(text)
        made.serve()
        self.kept.sweep()
        return made

    def close(self) -> None:
        self.kept.begin()
        self.kept.sweep()
        self.tasks.stop()
        for fake in self.fakes:
            fake.close()
        settle()
        assert self.problems == []


@contextmanager
def process(directory: Path, *scripts: list[Script]) -> Iterator[Process]:
    made = Process(directory, *scripts)
    try:
        yield made
    finally:
        made.close()


def handler(upstreams: Upstreams, route: RouteSettings = ROUTE) -> Handler:
    end = upstreams.end(route)
    assert end is not None
    return end


def servers(upstreams: Upstreams, name: str = "app") -> tuple[Server, ...]:
    return upstreams._all[name]._group.servers


def ask(end: Handler, data: bytes = GET, **more: str) -> tuple[Response, str]:
    """(response, the server that gave it)."""
    request = request_of(data, **more)
    response = end(request)
    if response.body is not None:
        response.body.close()
    return response, request.attempts[-1].server


ONE = "[upstream app]\nserver.a = {1}\n"
TWO = ONE + "server.b = {2}\n"


# -- building


def test_a_server_has_what_is_written_behind_it(tmp_path: Path) -> None:
    text = (
        "[upstream app]\nserver.a = 127.0.0.1:1 weight=5 max_fails=3 fail_timeout=7s max_connections=9 "
        "slow_start=4s\nserver.b = unix:/x backup\nserver.c = 127.0.0.1:2 down\n"
    )
    with process(tmp_path) as it:
        one, backup, down = servers(it.serve(text))
        assert (one.name, one.weight, one.max_fails, one.fail_timeout) == ("127.0.0.1:1", 5, 3, 7.0)
        assert (one.limit, one.slow_start, one.backup, one.down) == (9, 4.0, False, False)
        assert (backup.name, backup.backup, backup.limit) == ("unix:/x", True, 0)
        assert down.down


@pytest.mark.parametrize(
    "written",
    [
        "round_robin",
        "least_connections",
        "ip_hash",
        "hash {{client_ip}}",
        "hash {{client_ip}} consistent",
        "random_two",
        "least_time",
    ],
)
def test_every_way_to_choose_asks_all_servers(tmp_path: Path, written: str) -> None:
    with process(tmp_path) as it:
        text = f"[upstream app]\nserver.a = 127.0.0.1:1\nserver.b = 127.0.0.1:2\nbalance = {written}\n"
        group = it.serve(text)._all["app"]._group
        assert {group.choose(request_of(client=f"10.0.{n}.1"), 1.0).name for n in range(64)} == {
            "127.0.0.1:1",
            "127.0.0.1:2",
        }


def test_a_route_that_asks_nobody_has_no_end(tmp_path: Path) -> None:
    with process(tmp_path) as it:
        upstreams = it.serve("[upstream app]\nserver.a = 127.0.0.1:1\n")
        assert upstreams.end(RouteSettings()) is None


def test_routes_that_ask_for_the_same_share_their_end_and_all_share_their_turns(tmp_path: Path) -> None:
    with process(tmp_path, [[OK] * 2], [[OK] * 2]) as it:
        upstreams = it.serve(TWO)
        other = handler(upstreams, RouteSettings(upstream=(Share("app"),), read_timeout=1.0))
        assert handler(upstreams) is handler(upstreams, RouteSettings(upstream=(Share("app"),)))
        assert other is not handler(upstreams)
        asked = [ask(end)[1] for end in (handler(upstreams), other, handler(upstreams), other)]
        assert asked == [str(fake.address) for fake in it.fakes] * 2


def test_timeouts_are_the_routes_or_else_the_upstreams(tmp_path: Path) -> None:
    with process(tmp_path) as it:
        text = "connect_timeout = 1s\nsend_timeout = 2s\nread_timeout = 3s\nrequest_timeout = 4s\n"
        upstreams = it.serve(f"{ONE.format('', 'h:1')}{text}attempt_timeout = 6s\n")
        route = RouteSettings(upstream=(Share("app"),), read_timeout=30.0, request_timeout=0.0)
        timeouts = upstreams._all["app"]._terms(route).timeouts
        assert (timeouts.connect, timeouts.send, timeouts.read) == (1.0, 2.0, 30.0)
        assert (timeouts.request, timeouts.tunnel, timeouts.attempt) == (0.0, 3600.0, 6.0)


def test_a_split_gives_each_upstream_its_share(tmp_path: Path) -> None:
    with process(tmp_path, [[OK] * 99], [[OK] * 99]) as it:
        upstreams = it.serve(f"{ONE}[upstream canary]\nserver.a = {{2}}\n")
        end = handler(upstreams, RouteSettings(upstream=(Share("app", 90), Share("canary", 10))))
        asked = [ask(end)[1] for _ in range(20)]
        assert [at for at, name in enumerate(asked) if name == str(it.fakes[1].address)] == [5, 15]
        whole = handler(upstreams, RouteSettings(upstream=(Share("app", 100), Share("canary", 0))))
        assert whole is handler(upstreams)


# -- passive health, retries, statuses


def resets(side: ServerSide) -> None:
    side.read_request()
    side.reset()


def test_another_server_answers_for_one_that_fails_which_is_left_alone_then(tmp_path: Path) -> None:
    with process(tmp_path, [resets], [[OK] * 9]) as it:
        end = handler(it.serve(TWO))
        assert [ask(end)[1] for _ in range(4)] == [str(it.fakes[1].address)] * 4
        assert len(it.fakes[0].connections) == 1


@pytest.mark.parametrize(("status", "fails"), [(404, 0), (503, 1)])
def test_statuses_that_go_on_count_unless_they_are_about_the_request(
    tmp_path: Path, status: int, fails: int
) -> None:
    with process(tmp_path, [[answer(status)]], [[OK]]) as it:
        upstreams = it.serve(f"{TWO}retry_on = http_404 http_503\n")
        assert ask(handler(upstreams))[0].head.status == 200
        assert [one.state.fails for one in servers(upstreams)] == [fails, 0]


# -- reloads


def test_a_reload_keeps_states_connections_and_the_load(tmp_path: Path) -> None:
    with process(tmp_path, [[OK] * 9], [[OK] * 9]) as it:
        before = it.serve(TWO)
        ask(handler(before))
        one = servers(before)[0]
        one.state.fails = 1
        one.take(1.0)
        after = it.serve(f"{TWO}read_timeout = 7s\nbalance = least_connections\n")
        again = servers(after)[0]
        assert again is not one
        assert again.state is one.state
        assert again.pool is one.pool
        assert len(again.pool.pool.items) == 1
        assert ask(handler(after))[1] == str(it.fakes[1].address)
        one.give_back()
        assert again.state.active == 0


def test_a_server_that_is_gone_is_closed_and_one_that_stays_is_not(tmp_path: Path) -> None:
    with process(tmp_path, [[OK] * 9], [[OK] * 9]) as it:
        before = it.serve(TWO)
        for _ in range(2):
            ask(handler(before))
        stays, goes = servers(before)
        it.serve(ONE)
        assert (stays.pool.pool.is_closed, goes.pool.pool.is_closed) == (False, True)
        wait_until(lambda: not it.fakes[1].open_connections)
        assert it.fakes[0].open_connections == 1


def test_an_upstream_that_is_gone_lets_go_of_who_waits(tmp_path: Path) -> None:
    limited = "[upstream app]\nserver.a = {1} max_connections=1\n"
    with process(tmp_path, [[answer(body=b"hello")]], [[OK]]) as it:
        before = it.serve(limited)
        response = handler(before)(request_of())
        waiting = start(handler(before), request_of())
        settle()
        it.serve("[upstream other]\nserver.a = {2}\n")
        with pytest.raises(Failure) as caught:
            outcome(waiting)
        assert caught.value.status == 503
        response.body.close()


def test_who_waits_is_served_though_a_reload_comes_between(tmp_path: Path) -> None:
    limited = "[upstream app]\nserver.a = {1} max_connections=1\n"
    with process(tmp_path, [[answer(body=b"hello")], [OK, OK]]) as it:
        before = it.serve(limited)
        response = handler(before)(request_of())
        waiting = start(handler(before), request_of())
        settle()
        after = it.serve(f"{limited}read_timeout = 7s\n")
        later = start(handler(after), request_of())
        settle()
        assert not later.dead
        response.body.close()
        assert outcome(waiting).head.status == 200
        assert outcome(later).head.status == 200


def test_a_build_that_fails_changes_nothing(tmp_path: Path) -> None:
    with process(tmp_path, [[OK] * 9], [[OK] * 9]) as it:
        before = it.serve(ONE)
        ask(handler(before))
        it.build(f"{TWO}keepalive = 0\n")
        it.kept.abandon()
        assert len(servers(before)[0].pool.pool.items) == 1
        assert ask(handler(before))[1] == str(it.fakes[0].address)


def test_sticky_clients_stay_over_a_reload(tmp_path: Path) -> None:
    text = f"{TWO}sticky = cookie id\n"
    with process(tmp_path, [[OK] * 9], [[OK] * 9]) as it:
        before = it.serve(text)
        response, first = ask(handler(before))
        cookie = response.extra.removeprefix(b"Set-Cookie: ").partition(b";")[0]
        knows = b"GET / HTTP/1.1\r\nHost: x\r\nCookie: %b\r\n\r\n" % cookie
        after = it.serve(f"{text}read_timeout = 7s\n")
        for _ in range(3):
            response, name = ask(handler(after), knows)
            assert (name, response.extra) == (first, b"")
        forgets = it.serve(f"{text}sticky_key = other\n")
        assert ask(handler(forgets), knows)[0].extra.startswith(b"Set-Cookie: id=")


def test_a_breaker_is_kept_while_its_options_stay_the_same(tmp_path: Path) -> None:
    def breaker(upstreams: Upstreams) -> Breaker:
        return upstreams._all["app"]._guard._breaker  # type: ignore[union-attr, return-value]

    with process(tmp_path, [[answer(500)]]) as it:
        first = it.serve(f"{ONE}breaker_failures = 1\n")
        ask(handler(first))
        second = it.serve(f"{ONE}breaker_failures = 1\nread_timeout = 7s\n")
        assert breaker(second) is breaker(first)
        with pytest.raises(Failure, match="circuit_open"):
            handler(second)(request_of())
        assert it.told("circuit_opened")[0]["upstream"] == "app"
        third = it.serve(f"{ONE}breaker_failures = 2\n")
        assert breaker(third).state == "closed"
        assert it.serve(ONE)._all["app"]._guard is None


def test_a_limit_of_requests_counts_over_a_reload(tmp_path: Path) -> None:
    text = f"{ONE}concurrency_limit = 1\n"

    def slow(side: ServerSide) -> None:
        side.read_request()
        gate.wait()
        side.send(OK)

    from gevent.event import Event

    gate = Event()
    with process(tmp_path, [slow]) as it:
        first = start(handler(it.serve(text)), request_of())
        settle()
        with pytest.raises(Failure, match="upstream_overloaded"):
            handler(it.serve(f"{text}read_timeout = 7s\n"))(request_of())
        gate.set()
        assert outcome(first).head.status == 200


# -- observers


def test_least_time_learns_from_answers(tmp_path: Path) -> None:
    with process(tmp_path, [[OK] * 9], [[OK] * 9]) as it:
        upstreams = it.serve(f"{TWO}balance = least_time\n")
        for _ in range(4):
            ask(handler(upstreams))
        assert all(one.state.timed > 0.0 for one in servers(upstreams))
        plain = it.serve(TWO)
        assert all(one.observer is None for one in servers(plain))


def test_the_outlier_detection_hears_of_failures_and_keeps_what_it_knows(tmp_path: Path) -> None:
    text = f"{TWO}eject_errors = 2\neject_time = 60s\nretry_on = off\n"
    with process(tmp_path, [[answer(500)] * 9], [[OK] * 9]) as it:
        upstreams = it.serve(text)
        for _ in range(4):
            ask(handler(upstreams))
        (told,) = it.told("server_ejected")
        assert (told["upstream"], told["server"]) == ("app", str(it.fakes[0].address))
        again = handler(it.serve(f"{text}read_timeout = 7s\n"))
        assert {ask(again)[1] for _ in range(4)} == {str(it.fakes[1].address)}
        free = handler(it.serve(TWO))
        assert {ask(free)[1] for _ in range(4)} == {str(fake.address) for fake in it.fakes}


# -- active checks

CHECKED = "health_check = tcp\nhealth_interval = 100ms\nhealth_timeout = 100ms\nhealth_start = pending\n"


def test_servers_are_checked_from_the_moment_the_generation_serves(tmp_path: Path) -> None:
    with process(tmp_path, [[OK] * 9] * 9) as it:
        built = it.build(f"{ONE}{CHECKED}")
        settle()
        assert it.fakes[0].connections == []
        assert not servers(built)[0].state.healthy
        built.serve()
        it.kept.sweep()
        wait_until(lambda: it.told("server_up"))
        assert it.told("server_up")[0] | {"server": ""} == {"upstream": "app", "server": "", "left": 1}
        assert ask(handler(built))[0].head.status == 200


def test_a_check_that_survives_a_reload_counts_the_servers_of_today(tmp_path: Path) -> None:
    with process(tmp_path, [[OK] * 9] * 9, [[OK] * 9] * 9) as it:
        it.serve(f"{ONE}{CHECKED}")
        wait_until(lambda: it.told("server_up"))
        it.serve(f"{TWO}{CHECKED}")
        wait_until(lambda: len(it.told("server_up")) == 2)
        assert it.told("server_up")[1]["left"] == 2
        it.fakes[0].close()
        wait_until(lambda: it.told("server_down"))
        assert it.told("server_down")[0]["left"] == 1


def test_a_server_that_is_down_by_configuration_is_not_checked(tmp_path: Path) -> None:
    with process(tmp_path, [[OK] * 9] * 9, [[OK] * 9] * 9) as it:
        it.serve("[upstream app]\nserver.a = {1}\nserver.b = {2} down\n" + CHECKED)
        wait_until(lambda: it.told("server_up"))
        assert it.fakes[1].connections == []


def test_without_checks_a_server_is_usable_again(tmp_path: Path) -> None:
    with process(tmp_path, [[OK] * 9], []) as it:
        it.fakes[1].close()
        checked = it.serve(f"{TWO}{CHECKED}")
        wait_until(lambda: it.told("server_up"))
        assert not servers(checked)[1].state.healthy
        assert all(one.state.healthy for one in servers(it.serve(TWO)))


# -- what changed


def test_servers_that_are_new_or_gone_are_named(tmp_path: Path) -> None:
    with process(tmp_path) as it:
        before = it.serve("[upstream a]\nserver.x = h:1\nserver.y = h:2\n[upstream b]\nserver.x = h:1\n")
        after = it.serve("[upstream a]\nserver.x = h:1\nserver.z = h:3\n[upstream c]\nserver.x = h:1\n")
        assert sorted(after.changes(before)) == [
            ("a", {"h:3"}, {"h:2"}),
            ("b", set(), {"h:1"}),
            ("c", {"h:1"}, set()),
        ]
        assert list(after.changes(after)) == []
        assert it.kept.has(("upstream", "a", "off", *TrustOptions().trust_key))


# -- HTTP/2 and TLS


def test_requests_share_a_connection_that_outlives_a_generation(tmp_path: Path) -> None:
    text = "[upstream app]\nserver.a = {1}\nprotocol = h2c\n"
    with process(tmp_path, [serving()]) as it:
        for _ in range(3):
            assert ask(handler(it.serve(text)))[0].head.status == 200
        assert len(it.fakes[0].connections) == 1


def test_with_another_protocol_connections_are_others(tmp_path: Path) -> None:
    text = "[upstream app]\nserver.a = {1}\nkeepalive = 4\n"
    with process(tmp_path, [serving(), [OK]]) as it:
        assert ask(handler(it.serve(f"{text}protocol = h2c\n")))[0].head.status == 200
        assert ask(handler(it.serve(text)))[0].head.status == 200
        assert len(it.fakes[0].connections) == 2


def test_files_that_say_whom_to_believe_are_watched_while_they_count(tmp_path: Path) -> None:
    watched: list[Any] = []

    class Watch:
        def __init__(self, files: Any, changed: Any) -> None:
            self.files, self.changed, self.is_on = files, changed, False
            watched.append(self)

        def start(self) -> None:
            self.is_on = True

        def stop(self) -> None:
            self.is_on = False

    ca = tmp_path / "ca.pem"
    ca.write_bytes(Authority().pem)
    text = f"[upstream app]\nserver.a = a.test:1 down\nprotocol = https\ntls_ca = {ca}\n"
    with process(tmp_path) as it:
        it.around = it.around._replace(follow=Watch)
        made = it.serve(text)
        it.serve(text)
        (one,) = watched
        assert (one.is_on, one.files) == (True, (str(ca),))
        ca.write_bytes(Authority().pem)
        made.look()
        assert it.told("upstream_tls_renewed") == [{"upstream": "app"}]
        it.serve("[upstream app]\nserver.a = a.test:1 down\n")
        assert not one.is_on


def test_files_that_cannot_be_used_refuse_a_generation(tmp_path: Path) -> None:
    with process(tmp_path) as it, pytest.raises(ConfigurationError, match="tls_ca: /missing.pem"):
        it.serve("[upstream app]\nserver.a = a.test:1\nprotocol = https\ntls_ca = /missing.pem\n")


def test_each_upstream_tells_its_servers_and_the_names_that_nobody_knows(tmp_path: Path) -> None:
    with process(tmp_path, []) as around:
        made = around.serve("[upstream app]\nserver.a = {1}\n[upstream b]\nserver.a = 127.0.0.1:1 down\n")
        assert {one.name: [server.name for server in one.servers] for one in made} == {
            "app": [str(around.fakes[0].address)],
            "b": ["127.0.0.1:1"],
        }
        assert [one.unknown for one in made] == [{}, {}]
