# cython: language_level=3
"""C side of forward.py."""

from ..message cimport Attempt, Request, Response
from ..net.channel cimport Channel, Flow
from ..wire.head cimport Limits, ResponseHead

cdef class Timeouts:
    cdef public double connect
    cdef public double read
    cdef public double request
    cdef public double send
    cdef public double tunnel

cdef class Server:
    cdef public str name
    cdef public object pool

cdef class Forward:
    cdef object _balance
    cdef Limits _limits
    cdef object _now
    cdef Timeouts _timeouts
    cdef bint _upgrade
    cdef Py_ssize_t _buffer
    cdef Response _attempt(self, Request request, Server server, object connection)

cdef class _Exchange:
    cdef Forward _forward
    cdef Request _request
    cdef Attempt _attempt
    cdef object _connection
    cdef Channel _channel
    cdef bytes _method
    cdef long long _sent
    cdef double _started
    cdef Flow _upload
    cdef Response run(self, object pool)
    cdef _send(self, Timeouts timeouts)
    cdef ResponseHead _final_head(self, Timeouts timeouts)
