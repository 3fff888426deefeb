# cython: language_level=3
"""C side of serving.py: a session looks at it for every request."""

from .observe.access cimport AccessLog
from .wire.head cimport Limits

cdef class Serving:
    cdef public object addresses
    cdef public bytes always
    cdef public double body_timeout
    cdef public object date
    cdef public bint ended
    cdef public object event
    cdef public object handler
    cdef public double header_timeout
    cdef public bint http2
    cdef public double idle_timeout
    cdef public Limits limits
    cdef public AccessLog log
    cdef public int max_streams
    cdef public str name
    cdef public object on_failure
    cdef public str proxy_protocol
    cdef public str scheme
    cdef public object tls
    cdef public double write_timeout

cdef class Current:
    cdef public Serving serving
