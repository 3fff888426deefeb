from __future__ import annotations

from typing import Any

import pytest

from sidecar.config.schema import Kind
from sidecar.routing.regex import Regex
from sidecar.routing.values import (
    AUTHORITY,
    FIELD_NAMES,
    FIELD_VALUE,
    HOSTS,
    METHODS,
    PATH,
    PATHS,
    PREFIXES,
    REDIRECT,
    REGEX,
    RESPOND,
    REWRITE,
    SHARES,
    WANTED,
    Host,
    Share,
    field_name_mistake,
)


@pytest.mark.parametrize(
    ("kind", "text", "shown"),
    [
        (SHARES, "app", "app"),
        (SHARES, "app 100%", "app"),
        (SHARES, "app 90%,\ncanary 10%", "app 90%, canary 10%"),
        (SHARES, "app 100%, canary 0%", "app, canary 0%"),
        (HOSTS, "Example.org, *.example.org", "example.org, *.example.org"),
        (HOSTS, "a, a,\nb", "a, b"),
        (HOSTS, "[2001:DB8:0::7]", "[2001:db8::7]"),
        (HOSTS, "a, ~^b{1,2}$\nc, d\n~e,f", "a, ~^b{1,2}$\nc, d, ~e,f"),
        (HOSTS, "~^x$", "~^x$"),
        (PATH, "/", "/"),
        (PATHS, "/a, /b/\n/ü", "/a, /b/, /ü"),
        (PREFIXES, "/api/, /api, /", "/api, /"),
        (REGEX, "^/a{1,2}$", "^/a{1,2}$"),
        (WANTED, "yes", "yes"),
        (WANTED, "~.+", "~.+"),
        (METHODS, "GET, HEAD", "GET, HEAD"),
        (REDIRECT, "301 https://{host}{request_uri}", "301 https://{host}{request_uri}"),
        (REDIRECT, "/new", "302 /new"),
        (RESPOND, "200 OK then", "200 OK then"),
        (RESPOND, "404", "404"),
        (RESPOND, "200 a\nb", "200 a\nb"),
        (REWRITE, "^/v1/(.*)$ /$1?v=1", "^/v1/(.*)$ /$1?v=1"),
        (FIELD_NAMES, "X-A, x_b", "X-A, x_b"),
        (FIELD_VALUE, "a {host}\nb", "a {host} b"),
        (AUTHORITY, "{host}", "{host}"),
        (AUTHORITY, "app.internal:8080", "app.internal:8080"),
        (AUTHORITY, "[::1]:80", "[::1]:80"),
    ],
)
def test_what_is_shown_is_read_back(kind: Kind[Any], text: str, shown: str) -> None:
    value = kind.parse(text)
    assert kind.show(value) == shown
    assert kind.parse(shown) == value


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (SHARES, "app 90%, canary 11%", "shares out 101%: write shares that make 100%"),
        (SHARES, "app 90%", "shares out 90%"),
        (SHARES, "app, canary", "shares out 200%"),
        (SHARES, "app 50%, app 50%", "names an upstream twice"),
        (SHARES, "app 101%", "is not an upstream with its share: write NAME 90%"),
        (SHARES, "app 9.5%, canary 90.5%", "is not an upstream with its share"),
        (SHARES, "app 90, canary 10", "is not an upstream with its share"),
        (SHARES, "app 90% 10%", "is not an upstream with its share"),
        (SHARES, "app -10%, canary 110%", "is not an upstream with its share"),
        (HOSTS, "*", "leave host out"),
        (HOSTS, ".example.org", "write example.org, *.example.org"),
        (HOSTS, "http://example.org/", "write example.org, without scheme, port, path"),
        (HOSTS, "example.org:80", "write example.org, without"),
        (HOSTS, "*.example.org.", "write *.example.org, without"),
        (HOSTS, "bücher.example", "write xn--bcher-kva.example"),
        (HOSTS, "a b", "is not a host"),
        (HOSTS, "a.*", "write example.org, *.example.org or ~regex"),
        (HOSTS, "[::1]:80", "without a port"),
        (HOSTS, "~(", "is not a regex"),
        (PATH, "api", "write it from its slash on"),
        (PATH, "/a?b", "has a query"),
        (PATH, "/a//b", "write /a/b"),
        (PATH, "/a/../b", "write /b"),
        (PATH, "/a%20b", "write /a b"),
        (PATH, "/..", "get 400"),
        (PREFIXES, "/a/./", "write /a/"),
        (METHODS, "get", "write GET"),
        (METHODS, "GE T", "is not a method"),
        (REDIRECT, "200 /", "200 does not redirect: write 301"),
        (REDIRECT, "301", "has no URL"),
        (REDIRECT, "301 /a b", "has blanks in its URL"),
        (REDIRECT, "301 {hots}", "did you mean {host}"),
        (RESPOND, "OK", "is not a status"),
        (RESPOND, "101 no", "is not a status"),
        (RESPOND, "204 text", "has no text"),
        (REWRITE, "^/a$", "is not a regex and a replacement"),
        (REWRITE, "^/a$ http://x/", "use redirect"),
        (REWRITE, "^/(a)$ /$2", "has no group $2: it has 1"),
        (REWRITE, "^/(a)$ /$0", "has no group $0"),
        (FIELD_NAMES, "X A", "is not a field name"),
        (FIELD_NAMES, "Content-Length", "frames each message"),
        (FIELD_VALUE, "a\x07", "control character"),
        (AUTHORITY, "http://app", "is not a host"),
    ],
)
def test_mistakes_say_what_is_right(kind: Kind[Any], text: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        kind.parse(text)
    assert message in str(error.value)


def test_an_upstream_alone_has_all_of_it() -> None:
    assert SHARES.parse("app") == (Share("app"),)
    assert SHARES.parse("app 90%, canary 10%") == (Share("app", 90), Share("canary", 10))


def test_a_host_is_one_of_three() -> None:
    assert HOSTS.parse("a, *.b, ~c") == (Host(exact="a"), Host(suffix=".b"), Host(regex=Regex("c")))


@pytest.mark.parametrize(
    "name", ["Connection", "TE", "upgrade", "Host", "Trailer", "Keep-Alive", "Transfer-Encoding"]
)
def test_fields_of_the_connection_cannot_be_edited(name: str) -> None:
    wrong = field_name_mistake(name)
    assert wrong is not None
    assert wrong.startswith(f"{name} cannot be edited: ")
    assert field_name_mistake("X-Env") is None
