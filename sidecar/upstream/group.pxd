# cython: language_level=3
"""C side of group.py."""

from ..message cimport Request
from .server cimport Server

cdef class Group:
    cdef public tuple servers
    cdef public object sticky
    cdef public str unknown
    cdef object _primaries
    cdef object _backups
    cdef object _budget
    cdef long _begun
    cdef object _queue
    cdef object _relent
    cdef Py_ssize_t _room
    cdef double _wait
    cdef object _now
    cdef Server _only
    cdef bint _is_limited
    cpdef Server choose(self, Request request, double now, double patience=*)
    cpdef Server choose_other(self, Request request, double now, object tried)
    cpdef retried(self)
    cpdef Server pick(self, Request request, double now, object tried)
