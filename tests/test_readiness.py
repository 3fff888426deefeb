"""Readiness: what keeps requests away from a process, and what is merely said."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.readiness import Finding, Readiness, worst
from tests.support.upstreams import ban, server


class Group:
    """An upstream as it is looked at."""

    def __init__(self, name: str = "app", *servers: Any, **unknown: str) -> None:
        self.name = name
        self.servers = servers
        self.unknown = {name.replace("_", "."): why for name, why in unknown.items()}


def readiness(**changes: Any) -> Readiness:
    made = Readiness()
    made.is_serving = True
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def told(made: Readiness, *upstreams: Any, now: float = 1.0, **certificates: float) -> dict[str, str]:
    """Check → its line, of those that are not well."""
    found = made.findings(upstreams, certificates, now)
    return {one.check: str(one) for one in found if one.status != "ok"}


def test_all_is_well() -> None:
    found = readiness().findings([Group("app", server())], {"site": 5.0}, 1.0)
    assert worst(found) == "ok"
    assert [str(one) for one in found] == [
        "[+]process ok",
        "[+]configuration ok",
        "[+]names ok",
        "[+]upstreams ok",
        "[+]certificates ok",
    ]
    assert found[0].as_dict() == {"check": "process", "status": "ok", "detail": ""}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"is_serving": False}, "[-]starting"),
        ({"is_draining": True}, "[-]draining"),
        ({"is_draining": True, "is_serving": False}, "[-]draining"),
    ],
)
def test_a_process_that_does_not_serve_fails(changes: dict[str, bool], line: str) -> None:
    made = readiness(**changes)
    assert told(made) == {"process": line}
    assert worst(made.findings((), {}, 1.0)) == "failed"


def test_a_reload_that_was_refused_is_said() -> None:
    made = readiness(refused=["a.ini:1: one", "b.ini:2: two"])
    assert told(made) == {"configuration": "[!]reload refused: a.ini:1: one; b.ini:2: two"}
    assert worst(made.findings((), {}, 1.0)) == "degraded"


def test_names_that_are_not_resolved_are_said_with_their_upstream() -> None:
    found = told(
        readiness(), Group("app", api_example="NXDOMAIN"), Group("b", server(), c_example="SERVFAIL")
    )
    # An upstream whose names are all unknown has no server; once is enough.
    assert found == {
        "names": "[!]names not resolved yet: api.example: NXDOMAIN (upstream app); "
        "c.example: SERVFAIL (upstream b)"
    }


def test_an_upstream_without_a_usable_server_is_said_with_each_reason() -> None:
    down, unwell, out, banned = (server(f"10.0.0.{number}:80") for number in range(1, 5))
    down.down = True
    unwell.state.healthy = False
    out.state.ejected_until = 9.0
    ban(banned, 1.0)
    assert told(readiness(), Group("app", down, unwell, out, banned), Group("b", banned, server())) == {
        "upstreams": "[!]upstreams without a usable server: app (10.0.0.1:80 is down by configuration, "
        "10.0.0.2:80 has not passed its checks, 10.0.0.3:80 is ejected, 10.0.0.4:80 has failed too often)"
    }


def test_certificates_that_have_expired_are_said() -> None:
    assert told(readiness(), site=-1.0, other=60.0) == {
        "certificates": "[!]certificates that have expired: site"
    }


def test_the_answer_has_a_bound() -> None:
    many = [server(str(number), down=True) for number in range(25)]
    text = told(readiness(refused=["x"] * 23), Group("app", *many))
    assert text["configuration"].endswith("; x; x and 3 more")
    assert text["upstreams"].endswith("19 is down by configuration, 5 more)")


def test_a_finding_is_one_line_whatever_is_in_it() -> None:
    assert str(Finding("names", "degraded", "a\n[+]b é\x1b")) == "[!]a\\n[+]b é\\x1b"


def test_the_worst_counts() -> None:
    well, degraded, failed = Finding("a"), Finding("b", "degraded"), Finding("c", "failed")
    assert (worst([]), worst([well, degraded]), worst([failed, degraded])) == ("ok", "degraded", "failed")
