# cython: language_level=3
"""C side of exchange.py."""

cimport cython

from ..message cimport Attempt, Request, Response
from ..net.channel cimport Channel
from ..net.flow cimport Flow
from ..wire.head cimport Limits, RequestHead, ResponseHead
from .server cimport Server

cdef class Timeouts:
    cdef public double attempt
    cdef public double connect
    cdef public double idle
    cdef public double read
    cdef public double request
    cdef public double send
    cdef public double tunnel

cdef class Terms:
    cdef public Limits limits
    cdef public object introduce
    cdef public object now
    cdef public Timeouts timeouts
    cdef public frozenset unwanted
    cdef public bint upgrade
    cdef public bint may_refuse
    cdef public bint of_calls
    cpdef double deadline(self, double began, double started)

cdef class Exchange:
    cdef Terms _terms
    cdef Request _request
    cdef Attempt _attempt
    cdef object _connection
    cdef Channel _channel
    cdef bytes _method
    cdef long long _sent
    cdef double _began
    cdef double _started
    cdef Flow _upload
    cdef bint _is_cut
    cpdef Response run(self, Server server)
    cpdef double elapsed(self)
    cpdef bint is_over(self)
    cdef int _status_of_call(self, ResponseHead head)
    @cython.locals(head=RequestHead)
    cdef _send(self, Timeouts timeouts)
    cdef double _patience(self, Timeouts timeouts, double own) except -1
    @cython.locals(upload=Flow, until=double)
    cdef double _upload_until_answer(self, Timeouts timeouts) except -1
    cdef ResponseHead _final_head(self, Timeouts timeouts)
