# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Turns: one thread serves everybody, so nobody keeps it for long.

Law: who gives way does so to all others, those too whose bytes have come meanwhile. gevent's callbacks and its sleep
of 0 do not look for any; a timer does.
"""

from collections import deque

import gevent

SLICE = 0.0002


def slices_last(double seconds):
    """Let slices last that long; how long they did."""
    global SLICE
    before, SLICE = SLICE, seconds
    return before


cpdef int take_turns() except -1:
    """Let all others have their turn."""
    gevent.sleep(1e-9)
    return 0


cdef class Bringer:
    """Brings requests, which begin when it is its turn."""

    cdef int begin_some(self, double slice_end) except -1:
        """Let a share of them begin, or fewer until `slice_end`: MORE, LATE, both or 0."""
        raise NotImplementedError


cdef class Beginnings:
    """Requests that came and have not begun.

    One packet can bring a hundred, and whatever those do would come before the one of another client. So of what a
    bringer has a share begins, and more of it when all others had theirs.
    """

    def __init__(self, hub):
        self.hub = hub
        self.run_callback = hub.loop.run_callback
        self.run = self._run
        self.timer = hub.loop.timer(0)
        self.few = deque()
        self.many = deque()

    cdef int add(self, Bringer bringer) except -1:
        """This one has some, and had none."""
        self.few.append(bringer)
        if not self.scheduled:
            self.scheduled = True
            self.others_since = now()
            self.run_callback(self.run)
        return 0

    def _run(self):
        cdef double t = now()
        # Where rounds take long, with many at work, a fixed slice would be next to nothing of them.
        cdef double whole = max(SLICE, (t - self.others_since) / 2)
        cdef bint in_time = True
        try:
            # Those who have just come go first, and have half of it while there are others.
            while self.few and in_time:
                in_time = self._begin(self.few.popleft(), t + whole / 2)
            in_time = True
            while self.many and in_time:
                in_time = self._begin(self.many.popleft(), t + whole)
            while self.few and in_time:
                in_time = self._begin(self.few.popleft(), t + whole)
        finally:
            if self.few or self.many:
                self.timer.start(self.run)
                self.others_since = now()
            else:
                self.scheduled = False

    cdef bint _begin(self, Bringer bringer, double slice_end) except -1:
        """Whether there is time for another."""
        cdef int told = bringer.begin_some(slice_end)
        if told & MORE:
            self.many.append(bringer)
        return not told & LATE


cdef Beginnings _latest = None

cdef Beginnings beginnings(hub):
    """Those of this hub (a fork or a test may bring a new one)."""
    global _latest
    if _latest is None or _latest.hub is not hub:
        _latest = Beginnings(hub)
    return _latest
