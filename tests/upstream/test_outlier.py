"""Outlier ejection: what gets a server ejected, for how long, and that enough of them are always left."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.merge import load
from sidecar.config.schema import Section, options
from sidecar.errors import ConfigurationError
from sidecar.runtime import FakeClock
from sidecar.upstream.outlier import Outlier, OutlierOptions
from sidecar.upstream.server import Server, State

# Options ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Settings(OutlierOptions, Section):
    """A section with nothing but these options."""

    KIND: ClassVar[str] = "upstream"
    DOC: ClassVar[str] = "For tests."


def read(folder: Path, text: str) -> Settings:
    (folder / "a.ini").write_text(f"[upstream app]\n{text}\n")
    return load(folder, [Settings], {}).named(Settings)["app"]


def test_nobody_is_ejected_unless_asked_for(tmp_path: Path) -> None:
    settings = read(tmp_path, "")
    assert not settings.ejects
    assert (settings.eject_errors, settings.eject_error_rate, settings.eject_latency) == (0, 0, 0)
    assert (settings.eject_time, settings.eject_max) == (30, 50)


def test_every_option_is_read_and_has_its_sentence(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        "eject_errors = 5\neject_error_rate = 50%\neject_latency = 2.5x\neject_time = 1m\neject_max = 34%",
    )
    assert settings.ejects
    assert (settings.eject_errors, settings.eject_error_rate, settings.eject_latency) == (5, 50, 2.5)
    assert (settings.eject_time, settings.eject_max) == (60, 34)
    for option in options(Settings).values():
        assert option.doc.endswith(".")
        assert option.kind.parse(option.kind.show(getattr(settings, option.key))) is not None


@pytest.mark.parametrize("key", ["eject_errors", "eject_error_rate", "eject_latency"])
def test_each_way_may_be_off(tmp_path: Path, key: str) -> None:
    settings = read(tmp_path, f"{key} = off")
    assert not settings.ejects
    assert options(Settings)[key].kind.show(0) == "off"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("eject_errors = 0", "eject_errors: 0 is not between 1 and 1000, or off"),
        (
            "eject_error_rate = 50",
            "eject_error_rate: '50' is not a share: write whole percent, like 20%, or off",
        ),
        ("eject_error_rate = 101%", "101% is not between 1% and 100%"),
        ("eject_latency = 3", "eject_latency: '3' is not a factor: write 3x or 2.5x, or off"),
        ("eject_latency = 1x", "'1x' is not between 1.1x and 100x"),
        ("eject_max = 0%", "0% is not between 1% and 100%"),
        ("eject_time = 0s", "'0s' leaves no time at all"),
    ],
)
def test_what_is_wrong_is_told_with_what_would_be_right(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value)


def test_what_does_nothing_is_told() -> None:
    assert [key for key, _ in OutlierOptions(eject_time=9.0, eject_max=9).eject_idle()] == [
        "eject_time",
        "eject_max",
    ]
    assert list(OutlierOptions(eject_errors=1, eject_max=9).eject_idle()) == []


def test_settings_that_mean_the_same_have_the_same_key() -> None:
    assert OutlierOptions(eject_errors=5).eject_key == OutlierOptions(eject_errors=5).eject_key
    assert OutlierOptions(eject_errors=5).eject_key != OutlierOptions(eject_errors=6).eject_key


# The judge --------------------------------------------------------------------------------------------------


class Case:
    """Servers and their judge; time stands still unless the test moves it."""

    def __init__(self, count: int, **settings: Any) -> None:
        self.clock = FakeClock()
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.servers = [server(f"s{number}") for number in range(count)]
        self.outlier = Outlier("app", OutlierOptions(**settings), self._event)
        self.outlier.serve(self.servers, self.clock.now)

    def _event(self, name: str, /, **fields: Any) -> None:
        self.told.append((name, fields))

    def observe(self, number: int, *, failed: bool = False, seconds: float = 0.01, times: int = 1) -> None:
        for _ in range(times):
            self.outlier.observe(self.servers[number], failed, seconds, self.clock.now)

    def second(self, *each: tuple[int, int], **seconds: float) -> None:
        """A second of traffic: for each server, how many requests succeed and how many fail."""
        for number, (succeed, fail) in enumerate(each):
            self.observe(number, times=succeed, seconds=seconds.get(f"s{number}", 0.01))
            self.observe(number, failed=True, times=fail)
        self.clock.advance(1.0)

    @property
    def out(self) -> list[str]:
        return [each.name for each in self.servers if each.state.ejected_until > self.clock.now]

    def names(self) -> list[str]:
        return [name for name, _ in self.told]


def server(name: str) -> Server:
    pool: Any = None
    return Server(name, pool, State())


def test_failures_in_a_row_get_a_server_ejected_at_once() -> None:
    it = Case(3, eject_errors=5)
    it.observe(0, failed=True, times=4)
    assert it.out == []
    it.observe(0, failed=True)
    assert it.out == ["s0"]
    assert it.servers[0].state.ejected_until == it.clock.now + 30
    assert not it.servers[0].is_usable(it.clock.now)
    assert it.told == [
        (
            "server_ejected",
            {
                "upstream": "app",
                "server": "s0",
                "reason": "consecutive_errors",
                "detail": "5 in a row",
                "seconds": 30.0,
                "left": 2,
            },
        )
    ]


def test_a_success_in_between_begins_the_row_anew() -> None:
    it = Case(2, eject_errors=3)
    for _ in range(10):
        it.observe(0, failed=True, times=2)
        it.observe(0)
    assert it.out == []


def test_a_server_returns_when_its_time_is_over_and_the_next_request_tells() -> None:
    it = Case(2, eject_errors=1)
    it.observe(0, failed=True)
    it.clock.advance(29.5)
    it.observe(1)
    assert it.out == ["s0"]
    it.clock.advance(3.0)
    assert it.servers[0].is_usable(it.clock.now), "nobody has to be asked for that"
    it.observe(1)
    assert it.told[1:] == [("server_returned", {"upstream": "app", "server": "s0", "left": 2})]
    assert it.servers[0].state.recovered == it.clock.now - 2.5


def test_an_ejection_may_be_shorter_than_a_second() -> None:
    it = Case(2, eject_errors=1, eject_time=0.2)
    it.observe(1)
    it.observe(0, failed=True)
    it.clock.advance(0.25)
    it.observe(1)
    assert it.names() == ["server_ejected", "server_returned"]


def test_what_was_sent_before_the_ejection_is_no_new_offence() -> None:
    it = Case(4, eject_errors=1)
    it.observe(0, failed=True, times=20)
    assert it.names() == ["server_ejected"]
    it.clock.advance(30.0)
    it.observe(0)
    it.clock.advance(0.5)
    assert it.out == []


def test_the_first_failure_after_its_return_counts() -> None:
    it = Case(2, eject_errors=1)
    it.observe(0, failed=True)
    it.clock.advance(30.0)
    it.observe(0, failed=True)
    assert it.names() == ["server_ejected", "server_returned", "server_ejected"]
    assert it.out == ["s0"]


def test_who_is_ejected_again_and_again_stays_out_longer_up_to_ten_times() -> None:
    it = Case(2, eject_errors=1, eject_time=1.0)
    for _ in range(12):
        it.observe(0, failed=True)
        it.clock.now = it.servers[0].state.ejected_until
        it.observe(1)
    seconds = [fields["seconds"] for name, fields in it.told if name == "server_ejected"]
    assert seconds == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10]


def test_good_conduct_takes_it_off_again() -> None:
    it = Case(2, eject_errors=1, eject_time=10.0)
    for _ in range(4):
        it.observe(0, failed=True)
        it.clock.now = it.servers[0].state.ejected_until
        it.observe(1)
    it.clock.advance(25.0)
    it.observe(0, failed=True)
    assert it.told[-1][1]["seconds"] == 30.0  # 4 times, less 2, and once more


def test_a_server_that_fails_more_often_than_it_may_is_ejected() -> None:
    it = Case(3, eject_error_rate=40)
    it.second((30, 0), (19, 11), (30, 0))
    it.second((30, 0), (19, 11), (30, 0))
    assert it.out == []
    for _ in range(9):
        it.second((30, 0), (10, 20), (30, 0))
    assert it.out == ["s1"]
    assert it.told[0][1]["reason"] == "error_rate"
    assert "% of about " in it.told[0][1]["detail"]


def test_too_few_requests_prove_nothing() -> None:
    it = Case(2, eject_error_rate=10, eject_latency=2.0)
    it.second((0, 19), (19, 0))
    it.observe(1)
    assert it.out == []
    it = Case(2, eject_error_rate=10)
    it.second((0, 20), (20, 0))
    it.observe(1)
    assert it.out == ["s0"]


def test_what_was_long_ago_proves_nothing() -> None:
    it = Case(2, eject_error_rate=10)
    it.second((0, 100), (100, 0))
    it.clock.advance(60.0)
    it.observe(1)
    assert it.out == []


def test_what_was_a_while_ago_counts_little() -> None:
    it = Case(2, eject_error_rate=50)
    for _ in range(100):
        it.second((30, 0), (30, 0))
    for _ in range(8):
        it.second((0, 30), (30, 0))
    assert it.out == ["s0"]


def test_servers_are_compared_at_most_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    it = Case(4, eject_error_rate=50, eject_latency=3.0)
    looks: list[float] = []
    look = Outlier._look

    def counted(self: Outlier, now: float) -> None:
        looks.append(now)
        look(self, now)

    monkeypatch.setattr(Outlier, "_look", counted)
    for _ in range(400):
        it.clock.advance(0.0625)
        it.observe(0)
    assert len(looks) == 25


def test_a_server_much_slower_than_the_others_is_ejected() -> None:
    it = Case(4, eject_latency=3.0)
    it.second((30, 0), (30, 0), (30, 0), (30, 0), s1=0.05, s2=0.02, s3=0.015)
    it.observe(0)
    assert it.out == ["s1"]
    assert it.told[0][1]["reason"] == "latency"
    assert it.told[0][1]["detail"] == "50 ms, the others 15 ms"


@pytest.mark.parametrize("slow", [0.0299, 0.029])
def test_a_server_somewhat_slower_is_not(slow: float) -> None:
    it = Case(3, eject_latency=3.0)
    it.second((30, 0), (30, 0), (30, 0), s1=slow)
    it.observe(0)
    assert it.out == []


def test_a_difference_that_nobody_notices_is_none() -> None:
    it = Case(3, eject_latency=3.0)
    it.second((30, 0), (30, 0), (30, 0), s0=0.0005, s1=0.009, s2=0.0005)
    it.observe(0)
    assert it.out == []


def test_a_single_server_is_never_compared_nor_ejected() -> None:
    it = Case(1, eject_errors=1, eject_error_rate=1, eject_latency=1.1, eject_max=100)
    for _ in range(5):
        it.second((10, 100), s0=9.0)
    assert it.out == []


def test_several_may_go_at_once_but_not_more_than_the_share() -> None:
    it = Case(5, eject_error_rate=50, eject_max=50)
    it.second((5, 95), (2, 98), (100, 0), (0, 100), (100, 0))
    it.observe(2)
    assert it.out == ["s1", "s3"], "the worst"


def test_a_share_below_one_server_is_none() -> None:
    it = Case(3, eject_errors=1, eject_max=33)
    it.observe(0, failed=True, times=9)
    assert it.out == []


def test_the_last_server_that_is_fit_stays() -> None:
    it = Case(4, eject_errors=1, eject_max=100)
    it.servers[1].down = True
    it.servers[2].state.healthy = False
    it.observe(0, failed=True)
    assert it.out == ["s0"]
    it.observe(3, failed=True)
    assert it.out == ["s0"]
    assert it.told[0][1]["left"] == 1


def test_a_server_that_is_configured_down_does_not_count_for_the_share() -> None:
    it = Case(3, eject_errors=1, eject_max=50)
    for each in it.servers[1:]:
        each.down = True
    it.observe(0, failed=True)
    assert it.out == []


def test_when_the_others_go_away_an_ejected_one_is_brought_back() -> None:
    it = Case(3, eject_errors=1, eject_max=100)
    it.observe(0, failed=True)
    it.clock.advance(1.0)
    it.observe(1, failed=True)
    it.servers[2].state.healthy = False
    assert it.outlier.relent(it.clock.now)
    assert it.out == ["s1"]
    assert it.names() == ["server_ejected", "server_ejected", "server_returned"]
    it.servers[0].state.healthy = False
    it.servers[1].state.healthy = False
    assert not it.outlier.relent(it.clock.now)
    assert it.out == ["s1"], "it would not do either"


# Reloads ----------------------------------------------------------------------------------------------------


def again(each: Server) -> Server:
    """The same server in the next generation."""
    pool: Any = None
    return Server(each.name, pool, each.state)


def test_what_is_known_of_a_server_survives_a_reload() -> None:
    it = Case(2, eject_errors=3)
    it.observe(0, failed=True, times=2)
    it.servers = [again(each) for each in it.servers]
    it.outlier.serve(it.servers, it.clock.now)
    it.observe(0, failed=True)
    assert it.out == ["s0"]


def test_requests_of_an_older_generation_count_for_the_same_server() -> None:
    it = Case(2, eject_errors=1)
    old = it.servers
    it.servers = [again(each) for each in old]
    it.outlier.serve(it.servers, it.clock.now)
    it.outlier.observe(old[0], True, 0.0, it.clock.now)
    assert it.out == ["s0"]


def test_a_server_that_is_gone_is_nobodys_business() -> None:
    it = Case(3, eject_errors=1)
    gone = it.servers.pop()
    it.outlier.serve(it.servers, it.clock.now)
    it.outlier.observe(gone, True, 0.0, it.clock.now)
    assert it.told == []
    assert gone.state.ejected_until == 0


def test_with_fewer_servers_fewer_are_out() -> None:
    it = Case(4, eject_errors=1)
    it.observe(0, failed=True)
    it.clock.advance(1.0)
    it.observe(1, failed=True)
    it.servers = it.servers[:2]
    it.outlier.serve(it.servers, it.clock.now)
    assert it.out == ["s1"]
    it.servers = it.servers[1:]
    it.outlier.serve(it.servers, it.clock.now)
    assert it.out == []


def test_a_server_may_be_configured_down_by_a_reload() -> None:
    it = Case(2, eject_errors=1)
    it.servers = [again(each) for each in it.servers]
    it.servers[1].down = True
    it.outlier.serve(it.servers, it.clock.now)
    it.observe(0, failed=True)
    assert it.out == []


def test_the_events_name_a_server_as_the_newest_configuration_does() -> None:
    it = Case(2, eject_errors=1)
    it.servers = [again(each) for each in it.servers]
    it.servers[0].name = "new"
    it.outlier.serve(it.servers, it.clock.now)
    it.observe(0, failed=True)
    assert it.told[0][1]["server"] == "new"


def test_without_a_judge_all_are_back() -> None:
    it = Case(2, eject_errors=1)
    it.observe(0, failed=True)
    it.outlier.close()
    assert it.out == []
    it.observe(0, failed=True)
    assert it.out == []


# Never too many ---------------------------------------------------------------------------------------------


def steps(seed: int) -> Iterator[tuple[str, int]]:
    """A day of a cluster: requests that fail or are slow, health that comes and goes, reloads, silence."""
    chance = random.Random(seed)
    for _ in range(300):
        kind = chance.choices(
            ["fail", "good", "slow", "sick", "well", "wait", "reload"], [9, 9, 6, 1, 2, 3, 1]
        )
        yield kind[0], chance.randrange(1000)


@given(
    st.integers(1, 8),
    st.integers(1, 100),
    st.integers(0, 3),
    st.sampled_from([0, 30]),
    st.sampled_from([0.0, 1.5]),
    st.integers(0, 2**32),
)
def test_never_more_than_the_share_is_out_and_never_the_last_by_its_hand(
    count: int, share: int, errors: int, rate: int, latency: float, seed: int
) -> None:
    it = Case(
        count,
        eject_errors=errors,
        eject_error_rate=rate,
        eject_latency=latency,
        eject_time=5.0,
        eject_max=share,
    )
    everybody = it.servers
    for kind, number in steps(seed):
        now = it.clock.now
        position = number % len(it.servers)
        each = it.servers[position]
        fit = sum(one.is_fit(now) for one in it.servers)
        if kind == "wait":
            it.clock.advance(number / 250)
        elif kind in ("sick", "well"):
            each.state.healthy = kind == "well"
        elif kind == "reload":
            it.servers = [again(one) for one in everybody[: 1 + number % count]]
            it.outlier.serve(it.servers, now)
        else:
            it.observe(position, failed=kind == "fail", seconds=number / 1000, times=1 + number % 25)
            assert not fit or any(one.is_fit(now) for one in it.servers)
        assert len(it.out) <= len(it.servers) * share // 100
        if not any(one.is_fit(it.clock.now) for one in it.servers):
            could = any(one.state.healthy for one in it.servers)
            assert it.outlier.relent(it.clock.now) is could
