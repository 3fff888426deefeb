"""Addresses have one form, and every other form is refused with the right one."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.addresses import BIND, FLAG, SERVER_ADDRESS, Address, with_parameters
from sidecar.config.kinds import ON_OFF, integer


@dataclass(frozen=True, slots=True)
class Server:
    address: Address
    weight: int = 1
    spare: bool = False
    backup: bool = False


SERVER = with_parameters(Server, {"weight": integer(1, 9), "spare": ON_OFF, "backup": FLAG})


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:8080", Address("0.0.0.0", 8080)),
        ("[::]:0", Address("::", 0)),
        ("[2001:DB8:0::7]:443", Address("2001:db8::7", 443)),
        ("[fe80::1%eth0]:80", Address("fe80::1%eth0", 80)),
        ("App.Example:80", Address("app.example", 80)),
        ("my_app:80", Address("my_app", 80)),
        ("unix:/run/app.sock", Address(path="/run/app.sock")),
        ("fd:web", Address(name="web")),
        ("fd:sidecar-a\\x2db@1.socket", Address(name="sidecar-a\\x2db@1.socket")),
    ],
)
def test_addresses_are_read(text: str, address: Address) -> None:
    assert BIND.parse(text) == address
    assert BIND.parse(str(address)) == address
    assert address.is_unix == text.startswith("unix:")
    assert address.is_inherited == text.startswith("fd:")
    assert address.is_fixed == (not text.endswith(":0"))


@pytest.mark.parametrize("name", ["", "a:b", "a b", "a,b", "a\x01", "ä", "a" * 256])
def test_a_name_of_sockets_is_one_that_a_unit_can_give(name: str) -> None:
    with pytest.raises(
        ValueError, match="names no sockets: write fd: and the FileDescriptorName= of a socket"
    ):
        BIND.parse(f"fd:{name}")


def test_nobody_connects_to_inherited_sockets() -> None:
    with pytest.raises(ValueError, match="is not a port"):
        SERVER_ADDRESS.parse("fd:web")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http://a:80", "'http://a:80' is a URL: write host:port or unix:/path"),
        ("localhost", "'localhost' has no port: write host:port, [v6]:port or unix:/path"),
        ("[::1]", "'[::1]' has no port: write host:port, [v6]:port or unix:/path"),
        (":80", "':80' has no host: write 0.0.0.0:8080 or [::]:8080, with the port you mean"),
        ("a:http", "'http' in 'a:http' is not a port: write 1 to 65535 after the colon"),
        ("a:0", "'0' in 'a:0' is not a port: write 1 to 65535 after the colon"),
        ("a:65536", "'65536' in 'a:65536' is not a port: write 1 to 65535 after the colon"),
        ("::1:80", "'::1:80' has an IPv6 address without brackets: write [::1]:8080"),
        ("127.1:80", "'127.1' is not an IP address: write 192.0.2.7:80 or [2001:db8::7]:80"),
        ("0x7f.0.0.1:80", "'0x7f.0.0.1' is not an IP address: write 192.0.2.7:80 or [2001:db8::7]:80"),
        ("0177.0.0.1:80", "'0177.0.0.1' is not an IP address: write 192.0.2.7:80 or [2001:db8::7]:80"),
        ("[1.2.3.4]:80", "'[1.2.3.4]' is not an IP address: write 192.0.2.7:80 or [2001:db8::7]:80"),
        ("-a:80", "'-a' is not a host: write a name, an IPv4 address or an IPv6 address in brackets"),
        ("a..b:80", "'a..b' is not a host: write a name, an IPv4 address or an IPv6 address in brackets"),
        ("bücher:80", "'bücher' is not a host: write a name, an IPv4 address or an IPv6 address in brackets"),
        ("unix:run/a", "'unix:run/a' is not an absolute path: write unix:/run/app.sock"),
        ("unix:/a\x01", "'unix:/a\\x01' holds a character that no path should have: rename the socket"),
    ],
)
def test_other_forms_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError) as refused:
        SERVER_ADDRESS.parse(text)
    assert str(refused.value) == message


def test_names_and_paths_have_the_bounds_of_the_system() -> None:
    with pytest.raises(ValueError, match="is not a host"):
        BIND.parse(".".join(["a" * 63] * 4) + ":80")
    with pytest.raises(ValueError, match="too long for a UNIX socket: write at most 107 bytes"):
        BIND.parse("unix:/" + "ä" * 54)


def test_parameters_follow_the_address_in_any_order() -> None:
    server = Server(Address("a", 80), 5, True)
    assert SERVER.parse("a:80 spare=on\nweight=5") == server
    assert SERVER.show(server) == "a:80 weight=5 spare=on"
    assert SERVER.show(Server(Address("a", 80))) == "a:80"


def test_a_flag_is_a_word_alone_wherever_it_stands() -> None:
    server = Server(Address("a", 80), 5, backup=True)
    assert SERVER.parse("a:80 backup weight=5") == SERVER.parse("a:80 weight=5 backup") == server
    assert SERVER.show(server) == "a:80 weight=5 backup"
    assert SERVER.name == "address [weight=…] [spare=…] [backup]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:80 wieght=5", "'wieght=5' is not a parameter of a server: did you mean weight=?"),
        ("a:80 down", "'down' is not a parameter of a server: known are weight=, spare=, backup"),
        ("a:80 weight", "'weight' has no value: write weight=…, without spaces"),
        ("a:80 weight=5 weight=6", "weight= is given twice: keep one"),
        ("a:80 backup backup", "backup is given twice: keep one"),
        ("a:80 backup=on", "backup= takes no value: write the word alone"),
        ("a:80 backup=", "'backup=' has no value: write backup=…, without spaces"),
        ("a:80 bakcup", "'bakcup' is not a parameter of a server: did you mean backup?"),
        ("a:80 weight=10", "weight= 10 is not between 1 and 9"),
        ("weight=5 a:80", "'weight=5' has no port: write host:port, [v6]:port or unix:/path"),
    ],
)
def test_wrong_parameters_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError) as refused:
        SERVER.parse(text)
    assert str(refused.value) == message


@given(st.text(alphabet="a1.:[]-_x%/ =\n\x00é", min_size=1))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        address = BIND.parse(text)
    except ValueError as error:
        assert str(error)
    else:
        assert BIND.parse(str(address)) == address


@pytest.mark.parametrize(
    ("one", "other", "excludes"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", True),
        ("0.0.0.0:80", "127.0.0.1:80", True),
        ("[::]:80", "[::1]:80", True),
        ("unix:/a", "unix:/a", True),
        ("fd:a", "fd:a", True),
        ("127.0.0.1:80", "127.0.0.2:80", False),
        ("0.0.0.0:80", "127.0.0.1:81", False),
        ("0.0.0.0:80", "[::1]:80", False),
        ("0.0.0.0:0", "127.0.0.1:0", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("unix:/a", "unix:/b", False),
    ],
)
def test_some_addresses_cannot_be_bound_beside_each_other(one: str, other: str, excludes: bool) -> None:
    first, second = BIND.parse(one), BIND.parse(other)
    assert first.excludes(second) == second.excludes(first) == excludes


def test_a_wildcard_stands_for_all_addresses() -> None:
    assert BIND.parse("0.0.0.0:80").is_wildcard
    assert BIND.parse("[0:0::0]:80").is_wildcard
    assert not BIND.parse("127.0.0.1:80").is_wildcard
