# cython: language_level=3
"""C side of stream.py: one object per connection."""

from .message cimport Request
from .net.channel cimport Channel

cdef class StreamServing:
    cdef public bint ended
    cdef public object event
    cdef public double header_timeout
    cdef public object log
    cdef public str name
    cdef public str proxy_protocol
    cdef public bint reads_name
    cdef public object router
    cdef public object tls

cdef class Stream:
    cdef Channel _channel
    cdef Py_ssize_t _header
    cdef object _now
    cdef Request _request
    cdef StreamServing _serving
    cdef bint _waits
