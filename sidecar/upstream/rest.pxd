# cython: language_level=3
"""C side of rest.py."""

cdef class Rest:
    cdef double _closed_after
    cdef double _harmless
    cdef public double limit
    cdef public double longest
    cdef public double proven
    cpdef bint is_safe(self, double seconds) except -1
