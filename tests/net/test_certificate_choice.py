"""The choice of a certificate by the name that a client asks for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sidecar.net.certificate_choice import Choice


def certificate(*names: str, demands: str = "off") -> Any:
    return SimpleNamespace(names=names, context=f"context of {names[0]}", demands=demands)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("first.example", "first.example"),
        ("", "first.example"),
        ("unknown.example", "first.example"),
        ("x.b.example", "x.b.example"),
        ("x.b.example.", "x.b.example"),
        ("y.b.example", "*.b.example"),
        ("Y.B.EXAMPLE", "*.b.example"),
        ("y.y.b.example", "first.example"),
        ("b.example", "first.example"),
        (".b.example", "first.example"),
        ("shared.example", "*.b.example"),
        ("xn--mnchen-3ya.example", "xn--mnchen-3ya.example"),
    ],
)
def test_a_name_is_found_exactly_then_by_wildcard_else_the_first(name: str, expected: str) -> None:
    choice = Choice(
        [
            certificate("first.example"),
            certificate("*.b.example", "shared.example"),
            certificate("x.b.example", "shared.example"),
            certificate("xn--mnchen-3ya.example"),
        ]
    )
    assert choice(name) == f"context of {expected}"
    assert not choice.differ


def test_a_renewal_may_be_for_other_names_and_has_another_context() -> None:
    first, second = certificate("first.example"), certificate("old.example")
    choice = Choice([first, second])
    second.context = "renewed"
    assert choice("old.example") == "renewed"
    second.names = ("new.example",)
    choice.renew()
    assert (choice("old.example"), choice("new.example")) == ("context of first.example", "renewed")


def test_what_clients_must_show_may_depend_on_the_name() -> None:
    choice = Choice([certificate("free.example"), certificate("staff.example", demands="require")])
    assert choice.differ
    assert choice.demands("free.example") == choice.demands("other.example") == "off"
    assert choice.demands("staff.example") == "require"
