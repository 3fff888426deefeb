# cython: language_level=3
"""C side of access.py."""

cimport cython

from ..message cimport Attempt, Request

cdef class AccessLog:
    cdef bint _console
    cdef object _date
    cdef long long _millis
    cdef object _reasons
    cdef object _routes
    cdef str _second
    cdef str _stamp
    cdef readonly object _texts
    cdef object _write

    @cython.locals(millis=cython.longlong, micros=cython.longlong, path=str, tried=str, route=str)
    cpdef record(self, Request request, int status, str reason, long long received, long long sent, double duration)
    cpdef refused(self, str client, str listener, int status, str reason, long long sent)
    cdef _renew(self, long long millis)

@cython.locals(first=double, total=double, one=cython.longlong, two=cython.longlong)
cdef str _attempt(Attempt attempt, str server)
