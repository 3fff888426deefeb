"""Slots: where a number leads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.upstream.balance.slots import Slots
from tests.upstream.balance.fleet import fleet


def test_each_unit_of_weight_is_a_slot_and_numbers_wrap_around() -> None:
    slots = Slots(fleet(2, 1, 3))
    assert "".join(slots.at(number).name for number in range(13)) == "1123331123331"


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=20))
def test_all_numbers_of_a_round_lead_to_each_server_by_its_weight(weights: list[int]) -> None:
    servers = fleet(*weights)
    slots = Slots(servers)
    start = 0
    for server in servers:
        assert slots.at(start) is slots.at(start + server.weight - 1 + sum(weights)) is server
        start += server.weight
    assert slots.total == start
