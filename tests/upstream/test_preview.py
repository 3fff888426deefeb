"""Which server a request would go to, in advance: the one it goes to, and why not to the others."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.config.merge import load
from sidecar.kept import Kept
from sidecar.message import Request
from sidecar.net.names import Names
from sidecar.runtime import FakeClock, Tasks, World
from sidecar.upstream.preview import Preview, preview
from sidecar.upstream.settings import UpstreamSettings
from sidecar.upstream.sticky import Sticky
from sidecar.upstreams import Surroundings, Upstreams
from tests.support.upstreams import request_of, server

THREE = "server.a = 127.0.0.1:8001\nserver.b = 127.0.0.1:8002\nserver.c = 127.0.0.1:8003\n"


def settings(directory: Path, text: str) -> UpstreamSettings:
    (directory / "a.ini").write_text(f"[upstream app]\n{text}")
    return load(directory, [UpstreamSettings], {}).named(UpstreamSettings)["app"]


def asked(path: str = "/", *fields: str, client: str = "192.0.2.7") -> Request:
    lines = "".join(f"{field}\r\n" for field in fields)
    request = request_of(f"GET {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode(), client=client)
    request.path = path
    return request


def look(directory: Path, text: str, request: Request | None = None, share: int = 100) -> Preview:
    return preview("app", share, settings(directory, text), request or asked())


def chosen(found: Preview) -> str:
    return "".join(one.name for one in found.servers if one.is_chosen)


def told(found: Preview) -> list[str]:
    return [one.why for one in found.servers]


def shares(found: Preview) -> list[float | None]:
    return [None if one.share is None else round(one.share, 1) for one in found.servers]


# -- what is chosen is what is chosen when requests are served


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, Kept]]:
    kept = Kept()
    kept.begin()
    yield tmp_path, kept
    kept.begin()
    kept.sweep()


@pytest.mark.parametrize(
    "balance",
    ["ip_hash", "hash {path}", "hash {client_ip}{path}", "hash {path} consistent", "hash {header.x}"],
)
def test_the_server_is_the_one_that_the_data_path_takes(served: tuple[Path, Kept], balance: str) -> None:
    directory, kept = served
    text = f"{THREE}server.d = 127.0.0.1:8004 weight=3\nserver.e = 127.0.0.1:8005 down\nbalance = {balance}\n"
    own = settings(directory, text)
    tasks = Tasks(lambda *_: None)
    world = World(tasks, FakeClock(), random.Random(1), lambda *_, **__: None)
    around = Surroundings(world, b"secret")
    names = Names(tasks, world.clock, world.random, world.event)
    group = Upstreams({"app": own}, kept, names, around)._all["app"]._group
    addresses = {key: str(one.address) for key, one in own.server.items()}
    met = set()
    for at in range(60):
        request = asked(f"/{at}", f"X: {at}", client=f"10.{at}.{at * 7 % 251}.9")
        taken = group.pick(request, 0.0, ())
        assert taken is not None
        assert addresses[chosen(preview("app", 100, own, request))] == taken.name
        met.add(taken.name)
    assert len(met) == 4


@pytest.mark.parametrize(
    ("client", "name"), [("10.0.0.1", "a"), ("10.0.1.1", "b"), ("127.0.0.1", "c"), ("203.0.113.7", "a")]
)
def test_clients_have_the_servers_that_nginx_gives_them(tmp_path: Path, client: str, name: str) -> None:
    assert chosen(look(tmp_path, f"{THREE}balance = ip_hash\n", asked(client=client))) == name


# -- why, and why not


def test_servers_take_turns(tmp_path: Path) -> None:
    text = "server.a = h:1 weight=5\nserver.b = 127.0.0.1:2 weight=3 max_connections=7\nserver.c = unix:/c\n"
    found = look(tmp_path, text)
    assert told(found) == [
        "its turn is the first, it gets 56% of the requests",
        "gets 33% of the requests; at most 7 requests at one time",
        "gets 11% of the requests",
    ]
    assert (chosen(found), shares(found)) == ("a", [55.6, 33.3, 11.1])
    assert [one.address for one in found.servers] == ["h:1", "127.0.0.1:2", "unix:/c"]


def test_a_small_share_is_not_nothing(tmp_path: Path) -> None:
    text = "".join(f"server.s{at} = 127.0.0.1:{at + 1} weight=1000\n" for at in range(3))
    text += "server.t = 127.0.0.1:9 weight=20\nserver.u = 127.0.0.1:10 weight=1\n"
    assert told(look(tmp_path, text))[3:] == [
        "gets 0.7% of the requests",
        "gets less than 0.1% of the requests",
    ]


def test_the_least_busy_is_the_next_when_all_are_idle(tmp_path: Path) -> None:
    found = look(tmp_path, f"{THREE}balance = least_connections\n")
    assert chosen(found) == "a"
    assert told(found)[:2] == [
        "its turn is the first, it gets 33% of the requests while all are as busy for their weight",
        "gets 33% of the requests while all are as busy for their weight",
    ]


def test_who_draws_is_not_foretold(tmp_path: Path) -> None:
    found = look(tmp_path, f"{THREE}balance = random_two\n")
    assert (chosen(found), shares(found)) == ("", [33.3, 33.3, 33.3])
    assert told(found)[0] == "drawn for 33% of the requests, and taken when it is the less busy of two"
    found = look(tmp_path, f"{THREE}balance = least_time\n")
    assert (chosen(found), shares(found)) == ("", [None, None, None])
    assert told(found)[0] == "drawn in 33% of the cases, and taken when it is the quicker of two"


@pytest.mark.parametrize("balance", ["random_two", "least_time"])
def test_of_one_there_is_nothing_to_draw(tmp_path: Path, balance: str) -> None:
    text = f"server.a = 127.0.0.1:1 down\nserver.b = 127.0.0.1:2\nbalance = {balance}\n"
    found = look(tmp_path, text)
    assert (chosen(found), shares(found)) == ("b", [0.0, 100.0])
    assert told(found) == ["down, never asked", "no other can be asked"]


def test_a_key_leads_to_one_server_and_then_to_another(tmp_path: Path) -> None:
    found = look(tmp_path, f"{THREE}balance = hash {{path}} consistent\n", asked("/b"))
    assert told(found) == [
        "the key '/b' leads here",
        "the key '/b' leads elsewhere, here when that one cannot be asked",
        "the key '/b' leads elsewhere",
    ]
    assert shares(found) == [100.0, 0.0, 0.0]
    text = THREE.replace(":8001", ":8001 down") + "balance = hash {path} consistent\n"
    down = look(tmp_path, text, asked("/b"))
    assert told(down)[:2] == ["down, never asked", "the key '/b' leads here"]


def test_a_client_leads_to_one_server(tmp_path: Path) -> None:
    assert told(look(tmp_path, f"{THREE}balance = ip_hash\n"))[0].startswith("the client 192.0.2.7 leads ")


def test_a_key_that_is_empty_leads_nowhere(tmp_path: Path) -> None:
    found = look(tmp_path, f"{THREE}balance = hash {{header.x-user}}\n")
    assert told(found)[0] == "its turn is the first, it gets 33% of the requests"
    assert found.notes == ["{header.x-user} is empty for this request: servers take turns"]


def test_the_only_server(tmp_path: Path) -> None:
    for balance in ("round_robin", "ip_hash", "hash {path}", "random_two"):
        found = look(tmp_path, f"server.a = 127.0.0.1:1\nbalance = {balance}\n")
        assert (chosen(found), told(found), found.notes) == ("a", ["the only server"], [])


def test_backups_are_for_when_no_other_can_be_asked(tmp_path: Path) -> None:
    text = "server.a = 127.0.0.1:1{}\nserver.b = 127.0.0.1:2 backup\nserver.c = 127.0.0.1:3 backup{}\n"
    found = look(tmp_path, text.format("", ""))
    assert (chosen(found), shares(found)) == ("a", [100.0, 0.0, 0.0])
    assert told(found) == ["no other can be asked", *["backup, asked when no other can be"] * 2]
    found = look(tmp_path, text.format(" down", ""))
    assert (chosen(found), shares(found)) == ("b", [0.0, 50.0, 50.0])
    assert told(found)[1:] == [
        "its turn is the first, it gets 50% of the requests",
        "gets 50% of the requests",
    ]
    found = look(tmp_path, text.format(" down", " down"))
    assert (chosen(found), told(found)[1]) == ("b", "a backup, but no other can be asked")


def test_nobody_can_be_asked(tmp_path: Path) -> None:
    for text in ("server.a = 127.0.0.1:1 down\n", "server.a = 127.0.0.1:1 down\nserver.b = h:2 down\n"):
        found = look(tmp_path, text)
        assert chosen(found) == ""
        assert set(told(found)) == {"down, never asked"}
        assert found.notes[0] == "no server can be asked: 503, no_server"


# -- cookies


def cookie(name: str, secret: bytes = b"s") -> str:
    """The field of a client that the server at `name` has answered before."""
    sticky = Sticky("id", secret, "app", [server(name)])
    (line,) = sticky._lines.values()
    return f"Cookie: a=b; {line.split(b';')[0].partition(b': ')[2].decode()}"


STICKY = f"{THREE}sticky = cookie id\nsticky_key = s\n"


def test_a_cookie_leads_to_its_server(tmp_path: Path) -> None:
    found = look(tmp_path, STICKY, asked("/", cookie("127.0.0.1:8002")))
    assert (chosen(found), shares(found), found.notes) == ("b", [0.0, 100.0, 0.0], [])
    assert told(found) == [
        "the cookie id names another, here when that one cannot be asked",
        "the cookie id names it",
        "the cookie id names another",
    ]


def test_a_cookie_leads_to_a_backup_too(tmp_path: Path) -> None:
    text = f"{STICKY}server.d = 127.0.0.1:8004 backup\nbalance = least_time\n"
    found = look(tmp_path, text, asked("/", cookie("127.0.0.1:8004")))
    assert (chosen(found), told(found)[3], shares(found)) == ("d", "the cookie id names it", [0, 0, 0, 100])


def test_a_cookie_without_an_effect_is_explained(tmp_path: Path) -> None:
    def notes(text: str, *fields: str) -> list[str]:
        found = look(tmp_path, text, asked("/", *fields))
        assert chosen(found) == "a"
        return found.notes

    assert notes(STICKY) == ["the answer sets the cookie id: the client comes back to the same server"]
    forged = cookie("127.0.0.1:8002", b"other")
    assert notes(STICKY, forged) == ["the cookie id names none of the servers"]
    gone = STICKY.replace(":8002", ":8002 down")
    assert notes(gone, cookie("127.0.0.1:8002")) == ["the cookie id names server.b, which is down"]
    random_key = STICKY.replace("sticky_key = s\n", "")
    assert notes(random_key, cookie("127.0.0.1:8002")) == [
        "the cookie id may name a server: its key is known where it runs (no sticky_key)"
    ]
    named = f"{STICKY}server.n = app.test:80\n"
    assert notes(named, forged) == [
        "the cookie id names none of the servers whose addresses are written",
        "server.n: resolved when it runs, here it counts as one address",
    ]


# -- what is not known


def test_names_count_once(tmp_path: Path) -> None:
    found = look(tmp_path, "server.a = app.test:80\nserver.b = srv:_http._tcp.test\nserver.c = 127.0.0.1:1\n")
    assert found.notes == ["server.a, server.b: resolved when it runs, here each counts as one address"]
    assert [one.address for one in found.servers] == ["app.test:80", "srv:_http._tcp.test", "127.0.0.1:1"]
    assert shares(found) == [33.3] * 3


def test_pending_servers_are_as_good_as_probed(tmp_path: Path) -> None:
    found = look(tmp_path, f"{THREE}health_check = tcp\nhealth_start = pending\n")
    assert chosen(found) == "a"
    assert found.notes == ["servers are asked only after their first good probe (health_start = pending)"]


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("protocol = https\n", "protocol = https: HTTP/1.1 over TLS, certificates are verified"),
        ("protocol = h2\ntls_verify = off\n", "protocol = h2: HTTP/2 over TLS, nobody looks at certificates"),
        ("protocol = h2c\n", "protocol = h2c: HTTP/2 without TLS"),
    ],
)
def test_how_servers_are_spoken_to(tmp_path: Path, text: str, note: str) -> None:
    assert look(tmp_path, f"{THREE}{text}").notes == [note]


# -- how it is told


def test_what_people_read(tmp_path: Path) -> None:
    text = "server.a = 127.0.0.1:1\nserver.b = 127.0.0.1:2 down\nsticky = cookie id\n"
    assert list(look(tmp_path, text).lines()) == [
        "upstream app, balance round_robin:",
        "  > server.a 127.0.0.1:1: no other can be asked",
        "    server.b 127.0.0.1:2: down, never asked",
        "    the answer sets the cookie id: the client comes back to the same server",
    ]
    assert next(look(tmp_path, text, share=10).lines()).endswith("round_robin, 10% of the requests:")


def test_of_many_servers_the_text_has_some_and_the_one_that_is_chosen(tmp_path: Path) -> None:
    text = "".join(f"server.s{at} = 127.0.0.1:{at + 1}{' down' * (at < 40)}\n" for at in range(50))
    found = look(tmp_path, text)
    lines = list(found.lines())
    assert len(lines) == 1 + 20 + 1 + 1
    assert lines[21] == "  > server.s40 127.0.0.1:41: its turn is the first, it gets 10% of the requests"
    assert lines[22] == "    and 29 more (--json lists them all)"
    assert len(found.as_dict()["servers"]) == 50


def test_many_names_are_not_all_listed(tmp_path: Path) -> None:
    text = "".join(f"server.s{at} = h{at}:1\n" for at in range(25))
    (note,) = look(tmp_path, text).notes
    assert note.endswith("server.s19, 5 more: resolved when it runs, here each counts as one address")


def test_what_programs_read(tmp_path: Path) -> None:
    assert look(tmp_path, "server.a = 127.0.0.1:1\nserver.b = h:2 weight=2\n", share=30).as_dict() == {
        "upstream": "app",
        "share": 30,
        "balance": "round_robin",
        "servers": [
            {
                "server": "a",
                "address": "127.0.0.1:1",
                "chosen": False,
                "share": 33.333,
                "why": "gets 33% of the requests",
            },
            {
                "server": "b",
                "address": "h:2",
                "chosen": True,
                "share": 66.667,
                "why": "its turn is the first, it gets 67% of the requests",
            },
        ],
        "notes": ["server.b: resolved when it runs, here it counts as one address"],
    }
