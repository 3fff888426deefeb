"""gRPC from end to end: real clients and servers of grpcio, and a sidecar between them."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.certificates import Authority, Files
from tests.support.grpc_calls import (
    SERVICE,
    Client,
    Refusing,
    Server,
    client,
    failure,
    framed,
    metadata,
    raw_call,
    servers,
)
from tests.support.live import START, Conf, Live, Sidecar, free_port, until
from tests.support.peers import Answering, Message, Stream, response

OK = grpc.StatusCode.OK
CANCELLED = grpc.StatusCode.CANCELLED
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
INTERNAL = grpc.StatusCode.INTERNAL
NOT_FOUND = grpc.StatusCode.NOT_FOUND
RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED

MIB = 1 << 20
#: Messages of a conversation in which each side waits for the other.
TURNS = 1000
#: Calls that are made while servers end their connections again and again, and how many at one time.
CALLS = 2000
TOGETHER = 200

#: Options of a client that asks all addresses of its target in turn.
SPREAD = {
    "service_config": '{"loadBalancingConfig": [{"round_robin": {}}]}',
    "default_authority": "test",
}


def conf(*addresses: str, upstream: str = "", route: str = "") -> str:
    """One upstream of these servers for the methods of `test.Calls`."""
    lines = [f"server.s{number} = {address}" for number, address in enumerate(addresses)]
    return "\n".join(
        (
            "[upstream u]",
            *lines,
            "" if "protocol" in upstream else "protocol = h2c",
            upstream,
            "[route calls]",
            f"path_prefix = /{SERVICE}/",
            "upstream = u",
            route,
        )
    )


class Setting:
    """A server, a sidecar in front of it, and a client."""

    def __init__(self, server: Server, sidecar: Sidecar, made: Client) -> None:
        self.server = server
        self.sidecar = sidecar
        self.client = made

    def last_line(self) -> dict[str, Any]:
        """Of the access log, once there is one."""
        return self.sidecar.wait_exchanges(1)[-1]


@contextlib.contextmanager
def setting(
    live: Live, upstream: str = "", route: str = "", words: tuple[str, ...] = (), **options: Any
) -> Iterator[Setting]:
    """The three; `options` of the client, `words` of the server."""
    with servers(live.folder, "a", words=words) as (server,):
        sidecar = live.start(conf(server.address, upstream=upstream, route=route))
        with client(live.port, **options) as made:
            yield Setting(server, sidecar, made)


class Talk:
    """The client's side of a conversation: what it says next is up to the test."""

    def __init__(self) -> None:
        self._said: queue.Queue[bytes | None] = queue.Queue()

    def say(self, message: bytes) -> None:
        self._said.put(message)

    def end(self) -> None:
        self._said.put(None)

    def __iter__(self) -> Talk:
        return self

    def __next__(self) -> bytes:
        message = self._said.get()
        if message is None:
            raise StopIteration
        return message


# -- calls that go well -----------------------------------------


def test_a_message_for_a_message(live: Live) -> None:
    with setting(live) as it:
        assert it.client.echo(b"hello") == b"hello"
        assert it.client.echo(b"") == b""
        line = it.sidecar.wait_exchanges(2)[0]
        assert (line["protocol"], line["status"], line["grpc_status"]) == ("h2", 200, 0)
        assert (line["method"], line["path"], line["route"]) == ("POST", f"/{SERVICE}/Echo", "calls")
        assert "reason" not in line


def test_many_messages_for_one(live: Live) -> None:
    with setting(live) as it:
        assert it.client.upload(bytes(1000) for _ in range(500)) == b"500 500000"


def test_one_message_for_many(live: Live) -> None:
    with setting(live) as it:
        answers = list(it.client.download(b"2000 500"))
        assert len(answers) == 2000
        assert [int.from_bytes(answer[:4], "big") for answer in answers] == list(range(2000))


def test_a_conversation_in_which_each_side_waits_for_the_other(live: Live) -> None:
    with setting(live) as it:
        talk = Talk()
        answers = it.client.chat(talk)
        for turn in range(TURNS):
            talk.say(b"%d" % turn)
            assert next(answers) == b"%d" % turn
        talk.end()
        assert list(answers) == []
        assert answers.code() is OK


def test_a_server_that_speaks_first(live: Live) -> None:
    with setting(live) as it:
        talk = Talk()
        answers = it.client.speak(talk)
        assert next(answers) == b"hello"
        talk.say(b"you")
        assert next(answers) == b"again you"
        talk.end()
        assert list(answers) == []


def test_metadata_in_both_directions(live: Live) -> None:
    given = [("x-text", "a b,c"), ("x-bytes-bin", bytes(range(256))), ("x-twice", "1"), ("x-twice", "2")]
    with setting(live) as it:
        _, call = it.client.echo.with_call(b"m", metadata=given)
        first, last = metadata(call.initial_metadata()), metadata(call.trailing_metadata())
        assert (first["x-text"], first["x-bytes-bin"]) == ("a b,c", bytes(range(256)))
        assert (last["x-end-text"], last["x-end-bytes-bin"]) == ("a b,c", bytes(range(256)))
        assert [entry.value for entry in call.initial_metadata() if entry.key == "x-twice"] == ["1", "2"]


def test_the_server_learns_who_the_client_is(live: Live) -> None:
    with setting(live) as it:
        seen = it.client.fields(b"").decode()
        assert "x-forwarded-for: '127.0.0.1'" in seen
        assert "x-forwarded-proto: 'http'" in seen
        assert "content-length" not in seen


def test_large_messages(live: Live) -> None:
    message = bytes(range(256)) * (4 * MIB // 256)
    with setting(live) as it:
        assert it.client.echo(message) == message
        assert list(it.client.chat(iter([message, b"", message]))) == [message, b"", message]


def test_compressed_messages(live: Live) -> None:
    message = b"again and again " * 65536
    with setting(live, words=("compress",)) as it:
        assert it.client.echo(message, compression=grpc.Compression.Gzip) == message
        (line,) = it.sidecar.wait_exchanges(1)
        assert line["received"] < len(message) // 10
        assert line["sent"] < len(message) // 10


def test_pings_keep_a_quiet_stream(live: Live) -> None:
    options = {"keepalive_time_ms": 100, "keepalive_timeout_ms": 2000, "http2_max_pings_without_data": 0}
    with setting(live, **options) as it:
        talk = Talk()
        answers = it.client.chat(talk)
        for turn in range(3):
            talk.say(b"%d" % turn)
            assert next(answers) == b"%d" % turn
            # Some pings go by.
            assert it.client.echo(b"beside") == b"beside"
            with pytest.raises(grpc.FutureTimeoutError):
                it.client.hang.future(b"q", timeout=1).result(timeout=0.3)
        talk.end()
        assert list(answers) == []
        assert not it.sidecar.events("http2_refused")


def test_calls_over_tls_on_both_sides(live: Live, tmp_path: Path) -> None:
    authority = Authority()
    files = Files(tmp_path / "front", authority.issue("localhost"))
    behind = Files(tmp_path / "back", authority.issue("app.test"))
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    words = (f"certificate={behind.certificate}", f"key={behind.key}")
    trust = f"protocol = h2\ntls_ca = {tmp_path / 'ca.pem'}\ntls_server_name = app.test"
    live.listen("tls = site")
    live.conf.write("05-site.ini", f"[certificate site]\n{files.options}")
    with setting(live, trust, words=words) as it:
        credentials = grpc.ssl_channel_credentials(authority.pem)
        with client(f"localhost:{live.port}", credentials) as secure:
            assert secure.echo(b"secret") == b"secret"
            assert list(secure.chat(iter([b"a", b"b"]))) == [b"a", b"b"]
            line = it.last_line()
            assert (line["protocol"], line["tls"], line["grpc_status"]) == ("h2", "TLSv1.3", 0)


# -- calls that do not ------------------------------------------


def test_a_status_of_the_server_reaches_the_client_with_its_words(live: Live) -> None:
    with setting(live) as it:
        with pytest.raises(grpc.RpcError) as caught:
            it.client.fail("5 kein Schlüssel: 100 % ✓".encode())
        assert caught.value.code() is NOT_FOUND
        assert caught.value.details() == "kein Schlüssel: 100 % ✓"
        assert metadata(caught.value.trailing_metadata())["x-why-bin"] == b"\0\xff"
        line = it.last_line()
        assert (line["status"], line["grpc_status"]) == (200, 5)
        assert "reason" not in line


def test_every_status_arrives_as_it_is(live: Live) -> None:
    with setting(live) as it:
        for code in grpc.StatusCode:
            if code is not OK:
                assert failure(it.client.fail, b"%d why" % code.value[0]) == (code, "why")


def test_calls_that_fail_in_the_server_open_the_circuit_and_those_of_clients_do_not(live: Live) -> None:
    with setting(live, "breaker_failures = 3") as it:
        for status in (3, 5, 8, 12, 14, 13, 5, 2, 14):  # never three in a row that are the server's fault
            assert failure(it.client.fail, b"%d why" % status)[0].value[0] == status
        assert it.client.echo(b"still here") == b"still here"
        for status in (14, 13, 2):
            failure(it.client.fail, b"%d why" % status)
        assert it.sidecar.wait_event("circuit_opened")[0]["failures_in_a_row"] == 3
        assert failure(it.client.echo, b"hello")[0] is UNAVAILABLE


def test_a_method_that_the_server_does_not_know(live: Live) -> None:
    with setting(live) as it:
        assert failure(it.client.method(f"/{SERVICE}/Missing"), b"") == (UNIMPLEMENTED, "Method not found!")


def test_a_service_that_no_route_leads_to(live: Live) -> None:
    with setting(live) as it:
        assert failure(it.client.method("/other.Service/Call"), b"") == (UNIMPLEMENTED, "no_route")
        line = it.last_line()
        assert (line["status"], line["grpc_status"], line["reason"]) == (200, 12, "no_route")


def test_a_server_that_is_not_there(live: Live) -> None:
    live.start(conf(f"127.0.0.1:{free_port()}"))
    with client(live.port) as it:
        assert failure(it.echo, b"x") == (UNAVAILABLE, "connection_refused")
        assert failure(it.chat, iter([b"x"])) == (UNAVAILABLE, "connection_refused")


def test_a_server_that_dies_in_the_middle_of_an_answer(live: Live) -> None:
    with setting(live) as it:
        answers = it.client.download(b"3 100 wait")
        assert len([next(answers) for _ in range(3)]) == 3
        it.server.kill()
        assert failure(next, answers) == (UNAVAILABLE, "response_incomplete")
        line = it.last_line()
        assert (line["grpc_status"], line["reason"]) == (14, "response_incomplete")


def test_a_message_larger_than_the_route_allows(live: Live) -> None:
    with setting(live, route="max_body_size = 1k") as it:
        assert failure(it.client.echo, bytes(5000)) == (RESOURCE_EXHAUSTED, "request_body_too_large")
        assert failure(it.client.upload, (bytes(500) for _ in range(50)))[0] is RESOURCE_EXHAUSTED
        assert it.client.echo(b"small") == b"small"


def test_a_client_that_cancels_frees_the_server_at_once(live: Live) -> None:
    with setting(live) as it:
        hanging = it.client.hang.future(b"one")
        until(lambda: it.server.lines("hang", "one"), "the call is there")
        hanging.cancel()
        until(lambda: it.server.lines("cancelled", "one"), "the server hears of it", 2.0)

        answers = it.client.download(b"1 1 wait")
        next(answers)
        answers.cancel()
        until(lambda: it.server.lines("cancelled", "download"), "the server hears of it", 2.0)

        talk = Talk()
        answers = it.client.chat(talk)
        talk.say(b"x")
        next(answers)
        answers.cancel()
        until(lambda: it.server.lines("over", "chat"), "the server hears of it", 2.0)
        talk.end()
        assert it.client.echo(b"on") == b"on"


# -- time -------------------------------------------------------


def test_the_deadline_of_a_call_is_told_to_the_server_and_held(live: Live) -> None:
    with setting(live) as it:
        assert 8 < float(it.client.deadline(b"", timeout=10)) <= 10.01
        assert it.client.deadline(b"", timeout=None) == b""
        assert failure(it.client.hang, b"late", timeout=0.3)[0] is DEADLINE_EXCEEDED
        until(lambda: it.server.lines("cancelled", "late"), "the server hears of it", 2.0)


def test_a_deadline_that_the_client_itself_does_not_hold(live: Live) -> None:
    # The client's own bound is longer: what ends the call is the field.
    with setting(live) as it:
        bound = [("grpc-timeout", "300m")]
        status = raw_call(live.port, f"/{SERVICE}/Hang", b"field", dict(bound))
        assert status == ("4", "response_timeout")
        until(lambda: it.server.lines("cancelled", "field"), "the server hears of it", 2.0)
        line = it.last_line()
        assert (line["grpc_status"], line["reason"]) == (4, "response_timeout")

        assert raw_call(live.port, f"/{SERVICE}/Download", b"2 9 wait", dict(bound)) == (
            "4",
            "response_timeout",
        )
        until(lambda: it.server.lines("cancelled", "download"), "the server hears of it", 2.0)


@pytest.mark.parametrize("value", ["soon", "5", "123456789S", "-1S", "5s", ""])
def test_a_deadline_that_is_none_is_refused(live: Live, value: str) -> None:
    with setting(live) as it:
        status = raw_call(live.port, f"/{SERVICE}/Echo", b"x", {"grpc-timeout": value})
        assert status == ("13", "bad_grpc_timeout")
        assert not it.server.lines("echo")


def test_the_shorter_of_two_bounds_holds(live: Live) -> None:
    with setting(live, upstream="request_timeout = 300ms") as it:
        assert failure(it.client.hang, b"a") == (DEADLINE_EXCEEDED, "response_timeout")
        assert failure(it.client.hang, b"b", timeout=None) == (DEADLINE_EXCEEDED, "response_timeout")


def test_a_stream_may_be_silent_for_longer_than_a_response(live: Live) -> None:
    live.listen("body_timeout = 200ms")
    with setting(live, upstream="read_timeout = 200ms") as it:
        talk = Talk()
        answers = it.client.chat(talk)
        # Before the server's head, and after it.
        for message in (b"one", b"two"):
            with pytest.raises(grpc.FutureTimeoutError):
                it.client.hang.future(b"quiet", timeout=2).result(timeout=0.5)
            talk.say(message)
            assert next(answers) == message
        talk.end()
        assert list(answers) == []


def test_a_stream_that_is_silent_for_too_long_ends(live: Live) -> None:
    with setting(live, upstream="tunnel_timeout = 300ms") as it:
        talk = Talk()
        answers = it.client.chat(talk)
        talk.say(b"one")
        assert next(answers) == b"one"
        assert failure(next, answers) == (DEADLINE_EXCEEDED, "upstream_read_timeout")
        until(lambda: it.server.lines("over", "chat"), "the server hears of it", 2.0)
        # Before the server's head, with a whole message and in the middle of several.
        assert failure(it.client.hang, b"x") == (DEADLINE_EXCEEDED, "upstream_read_timeout")
        upload = Talk()
        upload.say(b"one")
        assert failure(it.client.upload, upload) == (DEADLINE_EXCEEDED, "upstream_read_timeout")
        talk.end()
        upload.end()


# -- several servers, and servers that go -----------------------


def test_calls_of_one_connection_are_spread_over_the_servers(live: Live) -> None:
    with servers(live.folder, "a", "b") as (one, two):
        live.start(conf(one.address, two.address))
        with client(live.port) as it:
            seen = Counter(it.name(b"n") for _ in range(100))
            assert seen == {b"a": 50, b"b": 50}


def test_calls_go_to_the_server_that_is_left(live: Live) -> None:
    with servers(live.folder, "a", "b") as (one, two):
        live.start(conf(one.address, two.address))
        with client(live.port) as it:
            it.name(b"1"), it.name(b"2")
            one.kill()
            # What was never sent, or refused, is repeated; a kept connection that has ended is known by then.
            until(lambda: failed_names(it, 20) == 0, "the one that is left serves all")


def failed_names(it: Client, count: int) -> int:
    """How many of so many calls fail."""
    failed = 0
    for number in range(count):
        try:
            it.name(b"%d" % number)
        except grpc.RpcError:
            failed += 1
    return failed


def many(it: Client, count: int, together: int) -> Counter[str]:
    """How so many calls end, so many of them at one time, and none is executed twice."""
    found: Counter[str] = Counter()
    room = threading.Semaphore(together)
    over = threading.Event()
    lock = threading.Lock()

    def end(number: int, call: Any) -> None:
        with lock:
            error = call.exception()
            found["ok" if error is None else f"{error.code().name} {error.details()}"] += 1
            if found.total() == count:
                over.set()
        room.release()

    for number in range(count):
        room.acquire()
        call = it.name.future(b"n%d" % number, wait_for_ready=True)
        call.add_done_callback(lambda call, number=number: end(number, call))
    assert over.wait(60)
    return found


def test_servers_that_end_their_connections_cost_no_call(live: Live) -> None:
    with servers(live.folder, "a", "b", words=("max_age_ms=150",)) as (one, two):
        live.start(conf(one.address, two.address))
        with client(live.port) as it:
            assert many(it, CALLS, TOGETHER) == {"ok": CALLS}
        executed = Counter(line.split()[2] for server in (one, two) for line in server.lines("name"))
        assert len(executed) == CALLS
        assert set(executed.values()) == {1}


def test_one_server_that_takes_few_calls_at_one_time(live: Live) -> None:
    with setting(live, words=("max_streams=5",)) as it:
        assert many(it.client, 300, 60) == {"ok": 300}


def test_health_of_the_service_decides(live: Live) -> None:
    checks = "health_check = grpc my.Service\nhealth_rise = 1\nhealth_fall = 1\n"
    checks += "health_interval = 1s\nhealth_timeout = 1s"
    with servers(live.folder, "a", "b") as (one, two), contextlib.ExitStack() as stack:
        direct = [stack.enter_context(client(server.port)) for server in (one, two)]
        for each in direct:
            each.state(b"my.Service SERVING")
        sidecar = live.start(conf(one.address, two.address, upstream=checks))
        it = stack.enter_context(client(live.port))
        assert {it.name(b"") for _ in range(10)} == {b"a", b"b"}
        direct[0].state(b"my.Service NOT_SERVING")
        sidecar.wait_event("server_down")
        assert {it.name(b"") for _ in range(10)} == {b"b"}
        direct[0].state(b"my.Service SERVING")
        sidecar.wait_event("server_up")
        assert {it.name(b"") for _ in range(10)} == {b"a", b"b"}


# -- a sidecar that changes or goes -----------------------------


def test_a_reload_leaves_streams_alone_and_is_in_force_for_new_calls(live: Live) -> None:
    with servers(live.folder, "a", "b") as (one, two):
        sidecar = live.start(conf(one.address))
        with client(live.port) as it:
            talk = Talk()
            answers = it.chat(talk)
            talk.say(b"before")
            assert next(answers) == b"before"
            live.conf.write("10-test.ini", conf(two.address))
            sidecar.wait_event("reload_applied")
            until(lambda: it.name(b"") == b"b", "new calls go to the new server")
            talk.say(b"after")
            assert next(answers) == b"after"
            talk.end()
            assert list(answers) == []


def test_reloads_cost_no_call(live: Live) -> None:
    with servers(live.folder, "a", "b") as (one, two):
        sidecar = live.start(conf(one.address))
        with client(live.port) as it, ThreadPoolExecutor() as pool:
            found = pool.submit(many, it, CALLS, TOGETHER)
            for turn in range(5):
                live.conf.write("10-test.ini", conf((two, one)[turn % 2].address))
                sidecar.wait_event("reload_applied", turn + 1)
            assert found.result() == {"ok": CALLS}
        assert one.lines("name") and two.lines("name")


def test_a_drain_under_load_costs_no_call(live: Live) -> None:
    with servers(live.folder, "a") as (server,):
        staying = live.start(conf(server.address))
        port, other = free_port(), Conf(live.folder / "other")
        other.write("10-all.ini", f"[listener other]\nbind = 127.0.0.1:{port}\n" + conf(server.address))
        leaving = live.launch(conf=other.path)
        leaving.wait_event("started", timeout=START)
        both = f"ipv4:127.0.0.1:{live.port},127.0.0.1:{port}"
        with client(both, **SPREAD) as it, ThreadPoolExecutor() as pool:
            found = pool.submit(many, it, CALLS, TOGETHER)
            leaving.wait_exchanges(100)
            leaving.signal(signal.SIGTERM)
            assert leaving.wait_exit() == 0
            assert found.result() == {"ok": CALLS}
        before = len(leaving.exchanges())
        assert 100 <= before < CALLS
        assert len(staying.wait_exchanges(CALLS - before)) == CALLS - before


def test_a_drain_lets_streams_finish_and_takes_no_new_connection(live: Live) -> None:
    with setting(live) as it:
        talk = Talk()
        answers = it.client.chat(talk)
        talk.say(b"before")
        assert next(answers) == b"before"
        it.sidecar.signal(signal.SIGTERM)
        it.sidecar.wait_event("draining")
        talk.say(b"after")
        assert next(answers) == b"after"
        with client(live.port) as other:
            assert failure(other.echo, b"late", timeout=5)[0] is UNAVAILABLE
        talk.end()
        assert list(answers) == []
        assert it.sidecar.wait_exit() == 0


def test_calls_are_mirrored(live: Live) -> None:
    with servers(live.folder, "a", "b") as (one, two):
        other = f"[upstream v]\nserver.b = {two.address}\nprotocol = h2c\n"
        live.start(other + conf(one.address, route="mirror = v 100%"))
        with client(live.port) as it:
            assert [it.name(b"n") for _ in range(10)] == [b"a"] * 10
            until(lambda: len(two.lines("b", "name")) == 10, "ten copies are there")


# -- where HTTP/1.1 is spoken


def test_trailers_reach_a_client_that_speaks_http_1(live: Live) -> None:
    with setting(live) as it, Stream.connect(live.port) as stream:
        body = framed(b"old")
        fields = "Content-Type: application/grpc\r\nTE: trailers\r\n"
        fields += f"Connection: close, TE\r\nContent-Length: {len(body)}\r\n"
        stream.send(f"POST /{SERVICE}/Echo HTTP/1.1\r\nHost: x\r\n{fields}\r\n".encode() + body)
        answer = stream.read_head()
        assert (answer.status, answer.fields["transfer-encoding"]) == (200, "chunked")
        chunks, _, trailers = stream.read_all().partition(b"\r\n0\r\n")
        assert chunks == b"%x\r\n%b" % (len(body), body)
        assert b"grpc-status: 0\r\n" in trailers
        assert it.last_line()["grpc_status"] == 0


def test_a_server_that_speaks_http_1_sends_its_status_as_a_trailer(live: Live) -> None:
    seen: list[Message] = []

    def answer(message: Message) -> bytes:
        seen.append(message)
        body = framed(b"from " + message.body[5:])
        return (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"%x\r\n%b\r\n0\r\ngrpc-status: 5\r\ngrpc-message: gone\r\n\r\n" % (len(body), body)
        )

    with Answering(answer) as app:
        live.start(conf(app.address, upstream="protocol = http"))
        with client(live.port) as it:
            answers = it.download(b"one")
            assert next(answers) == b"from one"
            assert failure(next, answers) == (NOT_FOUND, "gone")
    assert seen[0].fields["content-type"] == "application/grpc"


def test_grpc_web_is_passed_through_as_it_is(live: Live) -> None:
    def answer(message: Message) -> bytes:
        body = message.body + b"\x80\0\0\0\x0fgrpc-status: 0\r\n"
        return response(body, content_type="application/grpc-web+proto")

    with Answering(answer) as app:
        live.start(conf(app.address, upstream="protocol = http"))
        web = {"content_type": "application/grpc-web+proto", "x_grpc_web": "1"}
        with Stream.connect(live.port) as stream:
            found = stream.ask("POST", f"/{SERVICE}/Echo", framed(b"web"), **web)
            assert found.body == framed(b"web") + b"\x80\0\0\0\x0fgrpc-status: 0\r\n"
            # What goes wrong here is told in the words of HTTP.
            assert stream.ask("POST", "/nowhere", framed(b"web"), **web).status == 404


# -- a server that refuses


def test_a_call_that_the_server_did_not_take_is_made_again(live: Live) -> None:
    with Refusing() as app:
        sidecar = live.start(conf(app.address))
        with client(live.port) as it:
            assert [it.echo(b"%d" % number) for number in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
        lines = sidecar.wait_exchanges(5)
        sidecar.stop()
    attempts = [[one.get("reason", "") for one in line["attempts"]] for line in lines]
    assert attempts == [[""], *[["stream_refused", ""]] * 4]
    assert {line["grpc_status"] for line in lines} == {0}
