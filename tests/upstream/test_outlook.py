"""What `show` says of an upstream: which server is next, why the others are not, and what decides."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.addresses import Address
from sidecar.config.merge import load
from sidecar.upstream.outlook import outlook
from sidecar.upstream.preview import preview
from sidecar.upstream.settings import Balancing, Server, UpstreamSettings
from tests.support.upstreams import request_of

GOLDEN = Path(__file__).parent / "outlook"


def settings(directory: Path, text: str) -> UpstreamSettings:
    (directory / "a.ini").write_text(f"[upstream app]\n{text}")
    return load(directory, [UpstreamSettings], {}).named(UpstreamSettings)["app"]


@pytest.mark.parametrize("golden", sorted(GOLDEN.glob("*.txt")), ids=lambda path: path.stem)
def test_what_people_read(golden: Path, tmp_path: Path) -> None:
    text, expected = golden.read_text().split("----------\n")
    assert "".join(f"{line}\n" for line in outlook(settings(tmp_path, text))) == expected


servers = st.lists(
    st.builds(
        Server,
        st.integers(1, 1000).map(lambda port: Address("10.0.0.1", port)),
        weight=st.integers(1, 9),
        backup=st.booleans(),
        down=st.booleans(),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda server: server.address,
)


@given(servers, st.sampled_from(["round_robin", "least_connections"]))
def test_the_first_is_the_one_that_is_chosen_when_it_is_served(found: list[Server], balance: str) -> None:
    """As `explain` knows it, which asks what chooses."""
    own = UpstreamSettings(
        server={f"s{at}": server for at, server in enumerate(found)}, balance=Balancing(balance)
    )
    chosen = [one.name for one in preview("app", 100, own, request_of()).servers if one.is_chosen]
    first = [line.split()[0] for line in outlook(own) if line.startswith("server.") and " is asked" in line]
    assert first == [f"server.{name}" for name in chosen]


def test_a_long_list_is_cut_and_the_first_is_in_it(tmp_path: Path) -> None:
    many = "".join(f"server.s{at} = 10.0.0.1:{at}\n" for at in range(1, 25))
    lines = list(outlook(settings(tmp_path, f"{many}server.heavy = 10.0.0.2:80 weight=9\n")))
    assert lines[1] == "server.s1: its turn comes later, 1 of 33 requests"
    assert lines[-2:] == ["server.heavy is asked first, 9 of 33 requests", "and 4 more"]
    assert len(lines) == 1 + 20 + 1 + 1
    lines = list(outlook(settings(tmp_path, many)))
    assert lines[1].startswith("server.s1 is asked first")
    assert lines[-1] == "and 4 more"
