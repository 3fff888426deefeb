# cython: language_level=3
"""C side of session.py: one object per connection, its path compiled."""

from .message cimport Request, Response
from .net.channel cimport Channel
from .observe.access cimport AccessLog
from .wire.head cimport Limits, RequestHead

cdef class Serving:
    cdef public object addresses
    cdef public double body_timeout
    cdef public object date
    cdef public bint ended
    cdef public object event
    cdef public object handler
    cdef public double header_timeout
    cdef public double idle_timeout
    cdef public Limits limits
    cdef public AccessLog log
    cdef public str name
    cdef public object on_failure
    cdef public str proxy_protocol
    cdef public str scheme
    cdef public double write_timeout

cdef class Current:
    cdef public Serving serving

cdef class Session:
    cdef Current _current
    cdef Channel _channel
    cdef str _client
    cdef object _endpoints
    cdef bytes _fixed
    cdef bint _idle
    cdef Serving _known
    cdef object _now
    cdef str _peer
    cdef int _port
    cdef bint _trusted
    cdef bint _exchange(self, Serving serving) except -1
    cdef bint _deliver(self, Request request, Response response, Serving serving, long long sent, double started) except -1
    cdef Response _answer(self, Request request, Serving serving)
    cdef Request _request(self, RequestHead head, Serving serving)
    cdef bint _send(self, Request request, Response response, Serving serving) except -1
    cdef _log(self, Serving serving, Request request, int status, str reason, long long sent, double started)
