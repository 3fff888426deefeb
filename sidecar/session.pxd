# cython: language_level=3
"""C side of session.py: one object per connection, its path compiled."""

cimport cython

from .message cimport Request, Response
from .net.channel cimport Channel
from .serving cimport Current, Serving
from .wire.head cimport RequestHead, ResponseHead

cdef class Session:
    cdef Current _current
    cdef Channel _channel
    cdef str _client
    cdef object _endpoints
    cdef bytes _fixed
    cdef bint _idle
    cdef Serving _known
    cdef object _multiplex
    cdef object _now
    cdef str _peer
    cdef int _port
    cdef object _tls
    cdef bint _trusted
    @cython.locals(session=Session, serving=Serving)
    cpdef _serve_stream(self, Channel stream)
    cdef bint _exchange(self, Serving serving) except -1
    cdef bint _deliver(self, Request request, Response response, Serving serving, long long sent, double started) except -1
    @cython.locals(head=RequestHead)
    cdef Response _answer(self, Request request, Serving serving)
    cdef Request _request(self, RequestHead head, Serving serving)
    @cython.locals(head=ResponseHead)
    cdef bint _send(self, Request request, Response response, Serving serving) except -1
    cdef _log(self, Serving serving, Request request, int status, str reason, long long sent, double started)
