# cython: language_level=3
"""C side of relay.py."""

cimport cython

from ..message cimport Attempt, Request
from ..net.channel cimport Channel
from ..net.flow cimport Flow
from ..wire.head cimport ResponseHead
from .server cimport Server

cdef class Relay:
    cdef Attempt _attempt
    cdef object _connection
    cdef object _exchange
    cdef ResponseHead _head
    cdef Server _server
    cdef public Request call
    cdef public double idle
    cdef public long long moved
    cdef public double read_timeout
    cdef public bint is_last
    cdef public double until
    cdef public Flow upload
    @cython.locals(flow=Flow, head=ResponseHead)
    cpdef send_to(self, Channel client, int framing, double write_timeout)
    cdef _finish(self, connection, bint is_sent)

cdef class Tunnel:
    cdef Attempt _attempt
    cdef object _connection
    cdef Server _server
    cdef object _exchange
    cdef double _idle
    cdef public long long moved
    cdef public object upload
    cpdef send_to(self, Channel client, int framing, double write_timeout)
