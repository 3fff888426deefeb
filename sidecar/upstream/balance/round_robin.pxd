# cython: language_level=3
"""C side of round_robin.py."""

cimport cython

from ...message cimport Request
from ..server cimport Server

cdef class RoundRobin:
    cdef Server _only
    cdef list _servers
    cpdef Server pick(self, Request request, double now, object tried)

@cython.locals(best=Server, server=Server, total=Py_ssize_t, most=Py_ssize_t, effective=Py_ssize_t, gain=Py_ssize_t, credit=Py_ssize_t)
cpdef Server turn(list servers, double now)
