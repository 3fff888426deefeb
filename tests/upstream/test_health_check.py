"""What a health check is told: how it is written, what is refused, and what does nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.merge import load
from sidecar.config.schema import Kind, Section, options
from sidecar.errors import ConfigurationError
from sidecar.upstream.health_check import CHECK, HOST, PIECE, STATUSES, Check, HealthOptions, Statuses

GET = Check("GET", "/healthz")
TCP = Check()

# What is written --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (CHECK, "tcp", Check()),
        (CHECK, "GET /healthz", GET),
        (CHECK, "HEAD /", Check("HEAD", "/")),
        (CHECK, "OPTIONS /a%20b?x=1&y", Check("OPTIONS", "/a%20b?x=1&y")),
        (CHECK, "grpc", Check("grpc")),
        (CHECK, "grpc package.Service", Check("grpc", "package.Service")),
        (STATUSES, "200-399", (Statuses(200, 399),)),
        (STATUSES, "200, 204\n300-308", (Statuses(200, 200), Statuses(204, 204), Statuses(300, 308))),
        (HOST, "app.example", "app.example"),
        (HOST, "app_1:8080", "app_1:8080"),
        (HOST, "[2001:db8::7]:80", "[2001:db8::7]:80"),
        (PIECE, "all is well", "all is well"),
    ],
)
def test_what_is_written_is_what_is_meant_and_shown(kind: Kind[Any], text: str, value: object) -> None:
    assert kind.parse(text) == value
    assert kind.parse(kind.show(value)) == value


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (CHECK, "/healthz", "'/healthz' is not a check: did you mean GET /healthz?"),
        (CHECK, "TCP", "did you mean tcp?"),
        (CHECK, "off", "leave the value empty"),
        (CHECK, "get /", "methods are written in capitals: GET"),
        (CHECK, "POST /", "write GET /healthz, HEAD /, OPTIONS /, grpc, grpc SERVICE or tcp"),
        (CHECK, "GET", "write GET /healthz"),
        (CHECK, "GET / HTTP/1.1", "write GET /healthz"),
        (CHECK, "GET http://app/healthz", "is a URL: write the path alone, and health_host for the host"),
        (CHECK, "GET healthz", "'healthz' is not a path: write it from its slash on"),
        (CHECK, "GET /a#b", "'/a#b' is not a path"),
        (CHECK, "grpc a b", "'a b' is not a service: write grpc, or grpc package.Service"),
        (CHECK, 'grpc "a"', "is not a service"),
        (CHECK, f"grpc {'a' * 256}", "is not a service"),
        (CHECK, "GET /é", "'/é' is not a path"),
        (CHECK, "GET /%zz", "'/%zz' is not a path"),
        (CHECK, "GET /" + "a" * 2048, "the path has 2049 characters: write at most 2048"),
        (STATUSES, "ok", "'ok' is neither a status nor a range: write 200 or 200-399"),
        (STATUSES, "2xx", "write 200 or 200-399"),
        (STATUSES, "200-", "write 200 or 200-399"),
        (STATUSES, "100-199", "'100-199' holds statuses that no answer ends with: write 200 to 599"),
        (STATUSES, "500-700", "write 200 to 599"),
        (STATUSES, "399-200", "'399-200' does not go up: write 200-399"),
        (STATUSES, "200-200", "'200-200' does not go up: write 200"),
        (HOST, "http://app", "'http://app' is not a host: write example.org"),
        (HOST, "app:0", "is not a host"),
        (HOST, "app:65536", "is not a host"),
        (HOST, "[::g]", "is not a host"),
        (HOST, "[:::]", "is not a host"),
        (HOST, "::1", "is not a host"),
        (HOST, "a b", "is not a host"),
        (PIECE, "é" * 513, "1026 bytes are too long: write at most 1024"),
    ],
)
def test_what_is_wrong_is_told_with_what_would_be_right(kind: Kind[Any], text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        kind.parse(text)
    assert message in str(caught.value)


TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=1, max_size=12)


@given(st.sampled_from(["", "GET ", "GET /", "tcp", "200-", "[", "a:"]), TEXT)
def test_whatever_is_written_is_understood_or_refused_with_advice(start_with: str, text: str) -> None:
    for kind in (CHECK, STATUSES, HOST, PIECE):
        try:
            value = kind.parse(start_with + text)
        except ValueError as error:
            assert ": " in str(error)
            assert str(error).isprintable()
        else:
            assert kind.parse(kind.show(value)) == value


# Options ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Settings(HealthOptions, Section):
    """A section with nothing but these options."""

    KIND: ClassVar[str] = "upstream"
    DOC: ClassVar[str] = "For tests."

    def check(self) -> Iterator[tuple[str, str]]:
        """As an upstream does."""
        return self.health_mistakes()


def read(folder: Path, text: str) -> Settings:
    (folder / "a.ini").write_text(f"[upstream app]\n{text}\n")
    return load(folder, [Settings], {}).named(Settings)["app"]


def test_nothing_is_checked_unless_asked_for(tmp_path: Path) -> None:
    settings = read(tmp_path, "")
    assert settings.health_check is None
    assert (settings.health_interval, settings.health_fast_interval, settings.health_timeout) == (5, 1, 2)
    assert (settings.health_rise, settings.health_fall, settings.health_start) == (2, 3, "up")
    assert settings.health_expect == (Statuses(200, 399),)
    assert (settings.health_host, settings.health_body) == ("", "")


def test_every_option_is_read_and_has_its_sentence(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        "health_check = HEAD /up\nhealth_interval = 1m\nhealth_fast_interval = 2s\nhealth_timeout = 500ms\n"
        "health_rise = 1\nhealth_fall = 5\nhealth_expect = 204, 300-302\nhealth_host = app.example\n"
        "health_start = pending",
    )
    assert settings.health_check == Check("HEAD", "/up")
    assert (settings.health_interval, settings.health_fast_interval, settings.health_timeout) == (60, 2, 0.5)
    assert settings.health_expect == (Statuses(204, 204), Statuses(300, 302))
    assert all(option.doc.endswith(".") for option in options(Settings).values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("health_interval = 50ms", "health_interval: that is too often: write at least 100ms"),
        ("health_rise = 0", "health_rise: 0 is not between 1 and 100"),
        ("health_start = down", "health_start: 'down' is not one of up, pending"),
        ("health_check = tcp\nhealth_timeout = 6s", "health_timeout: is longer than health_interval"),
        (
            "health_check = tcp\nhealth_fast_interval = 6s",
            "health_fast_interval: is longer than health_inter",
        ),
        ("health_check = HEAD /\nhealth_body = ok", "health_body: an answer to HEAD has no body"),
    ],
)
def test_what_cannot_work_is_a_mistake(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value)


def test_what_does_nothing_is_told_apart_from_what_cannot_work() -> None:
    assert list(HealthOptions(health_rise=5, health_timeout=9.0).health_mistakes()) == []
    assert [key for key, _ in HealthOptions(health_rise=5).health_idle()] == ["health_rise"]
    idle = dict(HealthOptions(health_check=TCP, health_host="a", health_rise=5).health_idle())
    assert idle == {
        "health_host": "does nothing beside health_check = tcp: write GET /healthz, or remove this"
    }
    assert list(HealthOptions(health_check=GET, health_host="a").health_idle()) == []
    grpc = HealthOptions(health_check=Check("grpc"), health_host="a", health_body="ok")
    assert [key for key, _ in grpc.health_idle()] == ["health_body"]


def test_a_quick_check_needs_no_fast_interval_of_its_own() -> None:
    assert (
        list(HealthOptions(health_check=TCP, health_interval=0.5, health_timeout=0.5).health_mistakes()) == []
    )


def test_settings_that_mean_the_same_have_the_same_key() -> None:
    one, same = HealthOptions(health_check=GET), HealthOptions(health_check=Check("GET", "/healthz"))
    assert one.health_key == same.health_key
    assert hash(one.health_key) == hash(same.health_key)
    assert one.health_key != HealthOptions(health_check=GET, health_fall=4).health_key
