from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from sidecar.config.merge import Configuration, load
from sidecar.errors import ConfigurationError
from sidecar.net.settings import ListenerSettings
from sidecar.routing.asked import Question
from sidecar.routing.explain import Explanation, answer, explain
from sidecar.routing.settings import RouteSettings
from sidecar.settings import SECTIONS
from sidecar.upstream.settings import UpstreamSettings
from tests.support.signed import named, signed

GOLDEN = Path(__file__).parent / "explain"
BASE = "[listener public]\nbind = 127.0.0.1:8080\n[upstream app]\nserver.a = 127.0.0.1:8000\n"


def conf(directory: Path, text: str) -> Configuration:
    (directory / "a.ini").write_text(text)
    return load(directory, [ListenerSettings, UpstreamSettings, RouteSettings], {})


@pytest.mark.parametrize("golden", sorted(GOLDEN.glob("*.txt")), ids=lambda path: path.stem)
def test_what_people_read(golden: Path, tmp_path: Path) -> None:
    text, question, expected = golden.read_text().split("----------\n")
    method, url = question.split()
    told = explain(conf(tmp_path, text), method, url, [], "192.0.2.7", None)
    assert str(told).replace(f"{tmp_path}/", "") + "\n" == expected


def asked(configuration: Configuration, url: str, **more: Any) -> dict[str, Any]:
    told = explain(
        configuration, "GET", url, more.get("headers", []), "192.0.2.7", more.get("listener")
    ).as_dict()
    assert json.loads(json.dumps(told)) == told
    return told


def test_what_programs_read(tmp_path: Path) -> None:
    text = f"{BASE}[route a]\npath_prefix = /\nupstream = app\n[route b]\npath = /x\nrespond = 200 {{path}}\n"
    told = asked(conf(tmp_path, text), "http://example.org/x?y#z")
    values = told.pop("values")
    assert told == {
        "method": "GET",
        "url": "http://example.org/x?y#z",
        "listener": "public",
        "path": "/x",
        "tls": None,
        "refused": None,
        "route": "b",
        "origin": f"{tmp_path}/a.ini:8",
        "outcome": "respond 200 /x",
        "target": None,
        "match": {},
        "upstreams": [],
        "passed_over": [
            {
                "route": "a",
                "origin": f"{tmp_path}/a.ini:5",
                "matches": True,
                "why": "matches too, but its path is less specific than that of b",
            }
        ],
    }
    assert {"section": "[route b]", "key": "path", "value": "/x", "origin": f"{tmp_path}/a.ini:9"} in values
    assert {"section": "[route b]", "key": "priority", "value": "0", "origin": None} in values


def test_no_route(tmp_path: Path) -> None:
    told = explain(
        conf(tmp_path, f"{BASE}[route a]\npath = /x\nupstream = app\n"), "GET", "/y", [], "::1", None
    )
    assert told.as_dict()["route"] is None
    assert "  route     none: 404, no_route\n" in str(told)
    assert "a.ini:5): path is not /x" in str(told)


def test_the_listener_is_the_one_named_or_the_one_that_fits(tmp_path: Path) -> None:
    configuration = conf(
        tmp_path,
        "[listener one]\nbind = 127.0.0.1:8001\n[listener two]\nbind = 127.0.0.1:8002\n"
        "[route a]\nlistener = two\nrespond = 200\n[route b]\nlistener = one\npath = /b\nrespond = 200\n",
    )
    assert asked(configuration, "/")["listener"] == "two"
    assert asked(configuration, "http://x:8001/")["listener"] == "one"
    assert asked(configuration, "http://x:8001/")["route"] is None
    assert asked(configuration, "http://x:9/b")["listener"] == "one"
    assert asked(configuration, "/b", listener="two")["route"] == "a"
    with pytest.raises(ConfigurationError, match=r"there is no \[listener on\]: did you mean one\?"):
        asked(configuration, "/", listener="on")


def test_without_a_listener_routes_are_explained_all_the_same(tmp_path: Path) -> None:
    told = asked(conf(tmp_path, "[route a]\nrespond = 200\n"), "/")
    assert (told["listener"], told["route"]) == (None, "a")


def test_an_upstream_that_there_is_not_has_no_values(tmp_path: Path) -> None:
    told = asked(conf(tmp_path, "[route a]\nupstream = gone\n"), "/")
    assert {value["section"] for value in told["values"]} == {"[route a]"}


def test_what_a_rewrite_refuses(tmp_path: Path) -> None:
    told = asked(conf(tmp_path, "[route a]\nrewrite = ^/(.)(.*)$ /.$1/$2\nupstream = app\n"), "/...")
    assert (told["outcome"], told["target"]) == ("refused: 400, malformed_request: bad_path", None)


def test_timeouts_are_told_once_from_where_they_hold(tmp_path: Path) -> None:
    text = f"{BASE}[route a]\nread_timeout = 5s\nupstream = app\n"
    told = asked(conf(tmp_path, text), "/")
    values = {value["key"]: value for value in told["values"]}
    assert values["read_timeout"]["section"] == "[route a]"
    assert values["send_timeout"]["section"] == "[upstream app]"
    assert len([value for value in told["values"] if value["key"] == "read_timeout"]) == 1


def test_of_many_routes_the_text_lists_those_that_nearly_matched(tmp_path: Path) -> None:
    many = "".join(f"[route r{n}]\nhost = h{n}\nupstream = app\n" for n in range(50))
    near = "[route near]\nmethod = PUT\nupstream = app\n[route all]\nupstream = app\n"
    told = explain(conf(tmp_path, BASE + many + near), "GET", "/", [], "::1", None)
    assert len(told.as_dict()["passed_over"]) == 51
    lines = str(told).split("\n")
    start = lines.index("passed over, in the order of precedence:")
    assert lines[start + 1].endswith("method is GET, not PUT")
    assert lines[start + 2] == "  and 50 more (--json lists them all)"


def test_nothing_of_a_request_disturbs_the_terminal(tmp_path: Path) -> None:
    told = explain(
        conf(tmp_path, "[route a]\nrespond = 200 {path}\n"), "GET", "/%1B%5B2J\x1b", [], "::1", None
    )
    assert "\x1b" not in str(told)
    assert r"\x1b[2J" in str(told)


def test_a_split_names_its_upstreams_with_their_shares_and_the_values_of_each(tmp_path: Path) -> None:
    text = "[upstream canary]\nserver.a = 127.0.0.1:8001\nread_timeout = 7s\n"
    text += "[route a]\nupstream = app 90%, canary 10%, off 0%\n[upstream off]\nserver.a = 127.0.0.1:8002\n"
    told = str(explain(conf(tmp_path, BASE + text), "GET", "http://a/", [], "192.0.2.7", None))
    assert "upstream app 90%, canary 10%, off 0%" in told
    assert "\nupstream canary, balance round_robin, 10% of the requests:\n  > server.a 127.0.0.1:8001" in told
    assert "[upstream app]" in told
    assert "[upstream canary]\n" in told
    assert "read_timeout = 7s" in told


def test_programs_read_of_the_servers_too(tmp_path: Path) -> None:
    (upstream,) = asked(conf(tmp_path, f"{BASE}[route a]\nupstream = app\n"), "/")["upstreams"]
    assert (upstream["upstream"], upstream["share"], upstream["notes"]) == ("app", 100, [])
    assert upstream["servers"] == [
        {
            "server": "a",
            "address": "127.0.0.1:8000",
            "chosen": True,
            "share": 100.0,
            "why": "the only server",
        }
    ]


def test_the_request_tells_which_server_it_goes_to(tmp_path: Path) -> None:
    text = "server.b = 127.0.0.1:8001\nbalance = hash {header.x-user}\n[route a]\nupstream = app\n"
    configuration = conf(tmp_path, BASE + text)
    met = set()
    for user in range(9):
        told = asked(configuration, "/", headers=[("X-User", str(user))])
        (server,) = [one for one in told["upstreams"][0]["servers"] if one["chosen"]]
        assert server["why"] == f"the key '{user}' leads here"
        met.add(server["server"])
    assert met == {"a", "b"}


def test_of_a_request_that_is_refused_on_its_way_there_is_no_server(tmp_path: Path) -> None:
    text = f"{BASE}[route a]\nrewrite = ^/(.)(.*)$ /.$1/$2\nupstream = app\n"
    assert asked(conf(tmp_path, text), "/...")["upstreams"] == []


def test_a_connection_is_not_asked_for_what_only_requests_have(tmp_path: Path) -> None:
    """`check` refuses such a configuration; who asks before is told why."""
    text = "[listener edge]\nbind = 127.0.0.1:1\nprotocol = tcp\n"
    text += "[upstream app]\nserver.a = h:1\nserver.b = h:2\n"
    route = "[route a]\nlistener = edge\nupstream = app\n"
    for option, why in (
        ("sticky = cookie id\nsticky_key = s", "app is sticky by a cookie"),
        ("balance = hash {header.x}", "app chooses by {header.x}, which a TCP connection does not have"),
    ):
        (upstream,) = asked(conf(tmp_path, f"{text}{option}\n{route}"), "tcp://x")["upstreams"]
        assert upstream["servers"] == []
        assert upstream["notes"][0].startswith(why)


# TLS --------------------------------------------------------------------------------------------------------

TLS = """\
[certificate site]
certificate = a.pem
key = a.key
client_ca = ca.pem
verify_client = optional
[listener plain]
bind = 127.0.0.1:80
https_redirect = on
[listener secure]
bind = 127.0.0.1:443
tls = site
[route internal]
tls.sni = internal.example
tls.client_dns = cart.example
respond = 200 {tls.client_subject}
[route all]
respond = 200 {scheme} {tls.version}
[listener tunnel]
bind = 127.0.0.1:5432
protocol = tcp
tls = site
[upstream db]
server.a = 127.0.0.1:5433
[route db]
listener = tunnel
sni = db.example
tls.client_dns = cart.example
upstream = db
"""
CART = signed(named("cart"), [x509.DNSName("cart.example"), x509.UniformResourceIdentifier("urn:a")])


def secure(directory: Path, url: str, listener: str | None = None, **more: Any) -> Explanation:
    (directory / "a.ini").write_text(TLS)
    question = Question("GET", url, (), "192.0.2.7", **more)
    return answer(load(directory, SECTIONS, {}), question, listener)


def test_a_question_about_https_is_for_a_listener_with_tls(tmp_path: Path) -> None:
    told = secure(tmp_path, "https://app.example:9/")
    assert (told.listener, told.route, told.outcome) == ("secure", "all", "respond 200 https TLSv1.3")
    assert told.tls == {"version": "TLSv1.3", "sni": "app.example"}
    assert "\n  tls       version TLSv1.3, sni app.example\n" in str(told)
    (other,) = told.passed_over
    assert other.why == (
        "tls sni is 'app.example', not 'internal.example'; "
        "tls.client_dns needs a client certificate that is verified: none"
    )
    assert secure(tmp_path, "https://192.0.2.1/").tls == {"version": "TLSv1.3"}


def test_what_the_client_shows_is_taken_as_verified(tmp_path: Path) -> None:
    told = secure(tmp_path, "https://app.example/", sni="internal.example", certificate=CART)
    assert (told.route, told.outcome) == ("internal", "respond 200 CN=cart")
    assert told.as_dict()["tls"] == {
        "version": "TLSv1.3",
        "sni": "internal.example",
        "client_subject": "CN=cart",
        "client_san": "cart.example,urn:a",
    }


def test_a_connection_may_have_a_handshake(tmp_path: Path) -> None:
    assert secure(tmp_path, "tcp://db.example", certificate=CART).route == "db"
    assert secure(tmp_path, "tcp://:5432", sni="DB.example", certificate=CART).route == "db"
    (other,) = secure(tmp_path, "tcp://db.example").passed_over
    assert other.why == "tls.client_dns needs a client certificate that is verified: none"


def test_a_question_about_http_is_sent_to_https(tmp_path: Path) -> None:
    told = secure(tmp_path, "http://app.example/a?b")
    assert (told.listener, told.route, told.passed_over) == ("plain", "", [])
    assert str(told).endswith("\n  outcome   redirect 301 to https://app.example/a?b")
    assert secure(tmp_path, "http://app.example/.well-known/acme-challenge/x").route == "all"


def test_a_path_alone_is_for_any_listener(tmp_path: Path) -> None:
    assert secure(tmp_path, "/a").listener == "secure"
    assert secure(tmp_path, "/a", listener="plain").outcome == "redirect 301 to https://localhost/a"


def test_a_handshake_without_tls_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        secure(tmp_path, "/a", listener="plain", sni="a")
    assert caught.value.mistakes == [
        "[listener plain] has no TLS, so that there is no handshake: ask another one"
    ]
    with pytest.raises(ConfigurationError) as caught:
        answer(conf(tmp_path, BASE), Question("GET", "/", (), "192.0.2.7", certificate=CART), None)
    assert caught.value.mistakes == ["no listener has TLS: add tls = CERTIFICATE to one"]
