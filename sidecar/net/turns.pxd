# cython: language_level=3
"""C side of turns.pyx."""

from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

cdef inline double now() noexcept:
    """Seconds of the monotonic clock."""
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <double>t.tv_sec + <double>t.tv_nsec * 1e-9

cdef double SLICE               # seconds that one takes before all others have their turn

cpdef int take_turns() except -1

cdef enum:                      # what `begin_some` tells
    MORE = 1                    # there are others that have not begun
    LATE = 2                    # the slice is over

cdef class Bringer:
    cdef int begin_some(self, double slice_end) except -1

cdef class Beginnings:
    cdef object run_callback
    cdef object run
    cdef object timer
    cdef readonly object hub
    cdef object few             # who has just brought some,
    cdef object many            # … and who had a turn and still has some
    cdef double others_since    # the moment from which on others had their turn
    cdef bint scheduled
    cdef int add(self, Bringer bringer) except -1
    cdef bint _begin(self, Bringer bringer, double slice_end) except -1

cdef Beginnings beginnings(hub)
