"""Active health checks: each server is probed in the background, and used or not by what is found.

Law: a verdict takes several probes in a row, a transition is told once, and a probe that failed through this
process's own fault says nothing about the server. Who is not checked any more is usable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from ..config.addresses import Address
from ..runtime import World
from .health_check import Check, HealthOptions
from .probe import Connect, Finding, Probe
from .server import State

#: How far a pause may be from its interval, as a share of it: servers must not be probed in step.
_JITTER: Final = 0.1


def new_state(options: HealthOptions) -> State:
    """What is known of a server that was not there before."""
    state = State()
    state.healthy = options.health_check is None or options.health_start == "up"
    return state


class Subject(NamedTuple):
    """The server that a checker probes."""

    upstream: str
    server: str  # as the log names it
    address: Address  # as it is configured: what the Host field says unless health_host does
    state: State
    connect: Connect  # must keep its timeout in all, whatever it tries
    left: Callable[[], int]  # how many servers of the upstream are usable now


class Checker:
    """Probes one server until it is closed. A value for `Kept`: with the same settings it survives a reload.

    Made, it does nothing; `start` it when its generation serves and the checkers of older ones are closed, so
    that what they held of the server stays until this one finds otherwise.
    """

    __slots__ = (
        "_closed",
        "_found_down",
        "_is_new",
        "_options",
        "_probe",
        "_streak",
        "_subject",
        "_task",
        "_world",
        "failures",
        "finding",
        "probed",
        "probes",
    )

    def __init__(self, subject: Subject, options: HealthOptions, world: World) -> None:
        self._subject = subject
        self._options = options
        self._world = world
        self._probe = make_probe(options, subject.address)
        self._found_down = not subject.state.healthy
        self._is_new = self._found_down  # its first good probe is enough
        self._streak = 0  # probes in a row that contradict what is held of the server
        self._task: Any = None
        self._closed = False
        self.probes = 0
        self.failures = 0
        self.finding = Finding()  # of the last probe
        self.probed = 0.0  # monotonic moment of its end; 0: there was none

    def start(self) -> None:
        """Begin to probe, unless that has begun."""
        if self._task is None and not self._closed:
            if self._found_down:
                self._subject.state.healthy = False
            self._task = self._world.tasks.spawn("health check", self._run)

    def close(self) -> None:
        """Cancel what is going on. The server counts as usable."""
        self._closed = True
        if self._task is None:
            return
        self._task.kill(block=False)
        state = self._subject.state
        if not state.healthy:
            state.recovered = self._world.clock.monotonic()
            state.healthy = True

    # -- probing

    def _run(self) -> None:
        now = self._world.clock.monotonic
        # The first pause is of any length: servers that began together drift apart at once.
        share = self._world.random.uniform(_JITTER, 1.0)
        while not self._closed:
            began = now()
            self._take(self._probe.run(self._subject.connect, now))
            self._world.pause(max(0.0, self._interval() * share - (now() - began)))
            share = self._world.random.uniform(1.0 - _JITTER, 1.0 + _JITTER)

    def _interval(self) -> float:
        options = self._options
        if self._streak or self._is_new:
            return min(options.health_fast_interval, options.health_interval)
        return options.health_interval

    def _take(self, finding: Finding) -> None:
        """Draw the conclusion from a probe."""
        # Whoever is killed may be woken by its connection just before.
        if self._closed:
            return
        self.finding = finding
        self.probed = self._world.clock.monotonic()
        if finding.is_ours:
            return
        self.probes += 1
        if finding.reason:
            self.failures += 1
            self._failed(finding)
        else:
            self._succeeded()

    def _failed(self, finding: Finding) -> None:
        state = self._subject.state
        if not state.healthy:
            self._streak = 0
            if self._is_new and self.failures == 1:
                self._tell_down(finding)
            return
        self._streak += 1
        if self._streak >= self._options.health_fall:
            self._streak = 0
            state.healthy = False
            self._tell_down(finding)

    def _succeeded(self) -> None:
        subject, state = self._subject, self._subject.state
        if state.healthy:
            self._streak = 0
            return
        self._streak += 1
        if self._is_new or self._streak >= self._options.health_rise:
            self._streak = 0
            self._is_new = False
            state.recovered = self._world.clock.monotonic()
            state.healthy = True
            self._world.event(
                "server_up", upstream=subject.upstream, server=subject.server, left=subject.left()
            )

    def _tell_down(self, finding: Finding) -> None:
        subject = self._subject
        self._world.event(
            "server_down",
            upstream=subject.upstream,
            server=subject.server,
            reason=finding.reason,
            detail=finding.detail,
            left=subject.left(),
        )


def make_probe(options: HealthOptions, address: Address) -> Probe:
    """The probe of a server whose address is written so; without health_check a connection alone."""
    own = "localhost" if address.is_unix else f"{address}"
    probe = Probe(options.health_check or Check(), options.health_timeout, options.health_host or own)
    probe.expect = options.health_expect
    probe.body = options.health_body.encode()
    return probe
