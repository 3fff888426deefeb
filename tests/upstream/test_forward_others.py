"""Attempts at other servers: after which failure, with what, how often, and whose answer is the client's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from gevent.event import Event

from sidecar.message import Request
from sidecar.runtime import FakeClock
from sidecar.upstream.server import Server
from tests.support.streams import Script, ServerSide, now, outcome, settle, start, wait_until
from tests.support.upstreams import GET, OK, SOON, Fleet, answer, fleet, post, request_of

pytestmark = pytest.mark.usefixtures("no_leaks")

CHUNKED = b"PUT /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
KEY = b"Idempotency-Key: 1\r\n"
EXPECTS = b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"


class First:
    """Always the first that was not tried."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = servers

    def pick(self, request: Request, now: float, tried: Sequence[Server]) -> Server | None:
        return next((one for one in self._servers if one not in tried), None)


def resets(side: ServerSide) -> None:
    """Take the request and reset."""
    side.read_request()
    side.reset()


def silent(side: ServerSide) -> None:
    side.read_request()


#: What happens at the first server: name → (its scripts, the reason or status, whether the request arrived).
FIRST: dict[str, tuple[list[Script], str | int, bool]] = {
    "refused": ([], "connection_refused", False),
    "reset": ([resets], "connection_terminated", True),
    "silent": ([silent], "upstream_read_timeout", True),
    "garbage": ([[b"garbage\r\n\r\n"]], "malformed_response", True),
    "503": ([[answer(503, b"busy")]], 503, True),
    "404": ([[answer(404)]], 404, True),
}
ALL = ("error", "timeout", "invalid_header", "http_503", "http_404")


def run(first: str, data: bytes = GET, **options: Any) -> tuple[list[str], int | str]:
    """(servers asked, what the client gets) with a second server that would answer 200."""
    scripts, _, _ = FIRST[first]
    read = 0.05 if first == "silent" else 10.0
    with fleet(scripts, [[OK]], read=read, **options) as it:
        if first == "refused":
            it.fakes[0].close()
            settle()
        return ask(it, data)


def ask(it: Fleet, data: bytes) -> tuple[list[str], int | str]:
    try:
        result: int | str = it.status(data)
    except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at its reason
        result = getattr(error, "reason", repr(error))
    return it.asked, result


BOTH, FIRST_ONLY = ["app-1", "app-2"], ["app-1"]


# -- the table: reason × method × what was sent


@pytest.mark.parametrize("first", FIRST)
def test_with_all_conditions_a_get_always_goes_on(first: str) -> None:
    assert run(first, retry_on=ALL) == (BOTH, 200)


@pytest.mark.parametrize(
    ("first", "words"),
    [
        ("refused", ("timeout", "invalid_header", "http_503")),
        ("reset", ("timeout", "invalid_header", "http_503")),
        ("silent", ("error", "invalid_header", "http_503")),
        ("garbage", ("error", "timeout", "http_503")),
        ("503", ("error", "timeout", "invalid_header", "http_404")),
        ("404", ("error", "timeout", "invalid_header", "http_503")),
        ("reset", ()),
    ],
)
def test_without_its_condition_nothing_goes_on(first: str, words: tuple[str, ...]) -> None:
    assert run(first, retry_on=words) == (FIRST_ONLY, FIRST[first][1])


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("method", [b"POST", b"PATCH", b"LOCK"])
@pytest.mark.parametrize("has_body", [True, False])
def test_a_method_that_may_not_run_twice_goes_on_only_if_nobody_can_have_seen_it(
    first: str, method: bytes, has_body: bool
) -> None:
    data = post(method=method) if has_body else b"%b /a HTTP/1.1\r\nHost: x\r\n\r\n" % method
    _, result, arrived = FIRST[first]
    assert run(first, data, retry_on=ALL) == ((FIRST_ONLY, result) if arrived else (BOTH, 200))


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("data", [post(), post(fields=KEY)])
def test_it_goes_on_when_the_configuration_or_the_client_says_so(first: str, data: bytes) -> None:
    words = ALL if KEY in data else (*ALL, "non_idempotent")
    assert run(first, data, retry_on=words) == (BOTH, 200)


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("method", [b"PUT", b"DELETE", b"GET"])
def test_a_body_that_was_kept_is_sent_again(first: str, method: bytes) -> None:
    assert run(first, post(method=method), retry_on=ALL) == (BOTH, 200)


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("data", [post(method=b"PUT"), CHUNKED])
def test_a_body_that_is_too_large_to_be_kept_goes_on_only_while_it_is_whole(first: str, data: bytes) -> None:
    _, result, arrived = FIRST[first]
    assert run(first, data, retry_on=ALL, retry_body=4) == ((FIRST_ONLY, result) if arrived else (BOTH, 200))


@pytest.mark.parametrize("first", FIRST)
def test_a_body_of_unknown_length_is_kept_as_it_passes(first: str) -> None:
    assert run(first, CHUNKED, retry_on=ALL, retry_body=5) == (BOTH, 200)


@pytest.mark.parametrize("said", [b"", b"busy"])
def test_an_answer_before_the_end_of_a_body_that_was_kept_is_not_the_last_word(said: bytes) -> None:
    answered = Event()

    def declines(side: ServerSide) -> None:
        side.read_until(b"5\r\nhello\r\n")
        side.send(answer(503, said))
        side.read_all()
        answered.set()

    def sends(it: Fleet) -> None:
        answered.wait()
        it.client.send(b"0\r\n\r\n")

    with fleet([declines], [[OK]], retry_on=ALL) as it:
        sending = start(sends, it)
        assert it.status(CHUNKED.removesuffix(b"0\r\n\r\n")) == 200
        outcome(sending)
        assert it.asked == BOTH
        assert it.fakes[1].received[0].endswith(b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n")


def test_a_body_that_comes_in_pieces_reaches_the_second_server_whole() -> None:
    """The first one has got one piece when it dies, and the others come after that."""
    begun, died = Event(), Event()

    def dies(side: ServerSide) -> None:
        side.read_until(b"\r\n\r\n5\r\nhello\r\n")
        begun.set()
        side.reset()
        died.set()

    def sends(it: Fleet) -> None:
        begun.wait()
        died.wait()
        it.client.send(b"6\r\n world\r\n0\r\n\r\n")

    head, body = CHUNKED.split(b"\r\n\r\n", 1)
    with fleet([dies], [[OK]]) as it:
        sending = start(sends, it)
        assert it.status(head + b"\r\n\r\n" + body.removesuffix(b"0\r\n\r\n")) == 200
        outcome(sending)
        assert it.asked == BOTH
        (received,) = it.fakes[1].received
        assert received.endswith(b"\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")


def test_a_body_that_the_first_server_did_not_want_goes_to_the_second_whole() -> None:
    """The client waits for 100: nothing of the body has left it when the first server says 503."""

    def declines(side: ServerSide) -> None:
        side.read_until(b"\r\n\r\n")
        side.send(answer(503, b"busy"))

    def takes(side: ServerSide) -> None:
        side.read_until(b"\r\n\r\n")
        side.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        side.read(5)
        side.send(OK)

    told: list[int] = []
    with fleet([declines], [takes], retry_on=ALL) as it:
        asking = start(lambda: it.status(EXPECTS, interim=lambda head: told.append(head.status)))
        while not told:
            settle(1)
        it.client.send(b"hello")
        assert outcome(asking) == 200
        assert it.asked == BOTH
        assert it.received[1][0].endswith(b"\r\n\r\nhello")
        assert b"hello" not in it.received[0][0]


# -- how often


def test_each_attempt_is_at_another_server_and_the_last_result_is_the_clients() -> None:
    with fleet([resets], [[answer(503)]], [silent], retry_on=ALL, retry_attempts=9, read=0.05) as it:
        assert it.failure().reason == "upstream_read_timeout"
        assert it.attempts == [
            ("app-1", False, 0, "connection_terminated"),
            ("app-2", False, 503, ""),
            ("app-3", False, 0, "upstream_read_timeout"),
        ]
        assert it.fails == [1, 1, 1]


def test_an_answer_is_the_last_result_when_no_other_server_is_left() -> None:
    with fleet([resets], [[answer(503, b"busy")]], retry_on=ALL, retry_attempts=9) as it:
        response = it.ask()
        assert response.head.status == 503
        response.body.close()
        assert it.asked == BOTH


@pytest.mark.parametrize(("attempts", "asked"), [(1, 1), (2, 2), (3, 3), (9, 4)])
def test_attempts_are_counted_with_the_first(attempts: int, asked: int) -> None:
    with fleet(*[[resets]] * 4, retry_attempts=attempts) as it:
        assert it.failure().reason == "connection_terminated"
        assert it.asked == [f"app-{number}" for number in range(1, asked + 1)]


def refuse(it: Fleet, *numbers: int) -> None:
    for number in numbers:
        it.fakes[number - 1].close()
    settle()


@pytest.mark.parametrize("data", [GET, post()])
def test_servers_that_got_nothing_do_not_count(data: bytes) -> None:
    """Two of three that die together cost nobody an answer, whatever the method."""
    with fleet([], [], [[OK]], retry_attempts=2) as it:
        refuse(it, 1, 2)
        assert it.status(data) == 200
        assert it.asked == ["app-1", "app-2", "app-3"]
        assert it.fails == [1, 1, 0]


def test_those_that_got_it_count_among_those_that_did_not() -> None:
    with fleet([], [resets], [], [resets], [[OK]], retry_attempts=2, balance=First) as it:
        refuse(it, 1, 3)
        assert it.failure().reason == "connection_terminated"
        assert it.asked == ["app-1", "app-2", "app-3", "app-4"]


def test_when_nobody_can_be_reached_each_is_asked_once() -> None:
    with fleet([], [], [], retry_attempts=2) as it:
        refuse(it, 1, 2, 3)
        assert it.failure().reason == "connection_refused"
        assert it.asked == ["app-1", "app-2", "app-3"]


def test_one_attempt_is_one_also_when_nobody_is_reached() -> None:
    with fleet([], [[OK]], retry_attempts=1) as it:
        refuse(it, 1)
        assert (it.failure().reason, it.asked) == ("connection_refused", FIRST_ONLY)


def test_the_budget_bounds_those_that_do_not_count() -> None:
    with fleet([], [], [[OK]], budget=0) as it:
        refuse(it, 1, 2)
        # Three at one time are always allowed: these are in progress.
        for _ in range(3):
            assert it.group.choose_other(request_of(), now(), []) is not None
        assert (it.failure().reason, it.asked) == ("connection_refused", FIRST_ONLY)
        for one in it.servers:
            one.state.active = 0


def test_a_single_server_is_asked_once() -> None:
    with fleet([resets, [OK]], retry_attempts=9) as it:
        assert it.failure().reason == "connection_terminated"
        assert it.asked == FIRST_ONLY
        assert it.status() == 200


def test_a_dead_kept_connection_costs_no_attempt() -> None:
    """Each server may be asked a second time by a new connection: that is the same attempt."""

    def once(side: ServerSide) -> None:
        side.read_request()
        side.send(OK)
        resets(side)

    with fleet([once, resets], [once, [OK]]) as it:
        assert (it.status(), it.asked) == (200, ["app-1"])
        assert (it.status(), it.asked) == (200, ["app-2"])
        assert it.status() == 200
        assert it.attempts == [
            ("app-1", True, 0, "connection_terminated"),
            ("app-1", False, 0, "connection_terminated"),
            ("app-2", True, 0, "connection_terminated"),
            ("app-2", False, 200, ""),
        ]
        assert it.fails == [1, 0]


def test_no_attempt_begins_after_its_time() -> None:
    clock = FakeClock()

    def slow(side: ServerSide) -> None:
        side.read_request()
        clock.advance(3.0)
        side.reset()

    options: dict[str, Any] = {"retry_attempts": 9, "terms_clock": clock.monotonic}
    with fleet([slow], [slow], [[OK]], retry_timeout=6.5, **options) as it:
        assert (it.status(), it.asked) == (200, ["app-1", "app-2", "app-3"])
    with fleet([slow], [slow], [[OK]], retry_timeout=6.0, **options) as it:
        assert (it.failure().reason, it.asked) == ("connection_terminated", BOTH)


def test_no_attempt_begins_after_the_time_of_the_whole_exchange() -> None:
    clock = FakeClock()

    def slow(side: ServerSide) -> None:
        side.read_request()
        clock.advance(3.0)
        side.reset()

    with fleet([slow], [[OK]], terms_clock=clock.monotonic, request=3.0) as it:
        assert (it.failure().reason, it.asked) == ("connection_terminated", FIRST_ONLY)


def test_an_attempt_has_its_own_time() -> None:
    with fleet([silent], [[OK]], attempt=SOON) as it:
        assert it.status() == 200
        assert it.attempts == [("app-1", False, 0, "upstream_read_timeout"), ("app-2", False, 200, "")]


def test_a_budget_keeps_most_requests_from_being_asked_twice() -> None:
    """Three attempts at others are always allowed at one time; a fourth needs enough requests in progress."""
    with fleet([resets] * 4, [silent] * 4, budget=0, servers={1: {"max_fails": 0}}) as it:
        it.group.replace(it.servers, First)
        asking = [start(lambda: it.ask(client_channel=None)) for _ in range(4)]
        wait_until(lambda: any(each.dead for each in asking))
        (refused,) = [each for each in asking if each.dead]
        assert refused.exception.reason == "connection_terminated"
        assert it.active == [0, 3]
        for each in asking:
            each.kill()
        assert it.active == [0, 0]


# -- what is thrown away


def test_an_answer_that_is_thrown_away_closes_its_connection_and_gives_back_the_server() -> None:
    with fleet([[answer(503, b"x" * 100)]], [[OK]], retry_on=ALL) as it:
        assert it.status() == 200
        assert it.servers[0].pool.pool.items == []
        assert it.active == [0, 0]


def test_an_answer_without_a_body_that_is_thrown_away_keeps_its_connection() -> None:
    with fleet([[answer(503)]], [[OK]], retry_on=ALL) as it:
        assert it.status() == 200
        assert [len(one.pool.pool.items) for one in it.servers] == [1, 1]


def test_what_the_client_does_ends_it_all() -> None:
    with fleet([silent], [[OK]], retry_on=ALL) as it:
        asking = start(it.ask)
        settle()
        it.client.close()
        asking.join(5)
        assert getattr(asking.exception, "reason", "") == "client_gone"
        assert it.asked == FIRST_ONLY


def test_backups_are_asked_after_the_last_of_the_others() -> None:
    with fleet([resets], [[OK]], [resets], servers={2: {"backup": True}}, retry_attempts=3) as it:
        assert it.status() == 200
        assert it.asked == ["app-1", "app-3", "app-2"]


def test_when_nobody_is_left_the_first_request_hears_so_without_an_attempt() -> None:
    with fleet([], [], servers={1: {"down": True}, 2: {"down": True}}) as it:
        failure = it.failure()
        assert (failure.reason, failure.status, it.attempts) == ("no_server", 503, [])
