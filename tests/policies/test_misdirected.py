"""A connection that was opened for one name is no way around what another name demands."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from sidecar.errors import Failure
from sidecar.message import Request, Response
from sidecar.policies.misdirected import directed

DEMANDS = {"staff.example": "require", "open.example": "off", "www.example": "off"}
ANSWER = cast(Response, object())


def ask(host: str, sni: str | None) -> Response:
    def demands(name: str) -> str:
        return DEMANDS.get(name.lower(), "off")

    tls = None if sni is None else SimpleNamespace(sni=sni)
    request: Any = SimpleNamespace(host=host, tls=tls)
    return directed(lambda _: ANSWER, demands)(cast(Request, request))


@pytest.mark.parametrize(
    ("host", "sni"),
    [
        ("staff.example", "staff.example"),
        ("www.example", "open.example"),
        ("open.example", ""),
        ("STAFF.example", "staff.example"),
        ("staff.example", None),
    ],
)
def test_the_same_demands_are_served(host: str, sni: str | None) -> None:
    assert ask(host, sni) is ANSWER


@pytest.mark.parametrize(
    ("host", "sni"),
    [("staff.example", "open.example"), ("staff.example", ""), ("open.example", "staff.example")],
)
def test_other_demands_are_misdirected(host: str, sni: str) -> None:
    with pytest.raises(Failure) as caught:
        ask(host, sni)
    assert (caught.value.reason, caught.value.status) == ("misdirected_request", 421)
