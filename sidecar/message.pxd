# cython: language_level=3
"""C side of message.py: what exists per request has its fields in a struct."""

cimport cython

from .wire.head cimport RequestHead, ResponseHead

@cython.no_gc
@cython.freelist(32)
cdef class Attempt:
    cdef public str server
    cdef public bint reused
    cdef public double connect
    cdef public double first_byte
    cdef public double total
    cdef public int status
    cdef public str reason

@cython.freelist(32)
cdef class Request:
    cdef public list attempts
    cdef public object body
    cdef public str client
    cdef public object client_channel
    cdef public object drop
    cdef public object endpoints
    cdef public bytes extra
    cdef public int grpc_status
    cdef public RequestHead head
    cdef public object host
    cdef public bytes host_header
    cdef public object interim
    cdef public str listener
    cdef public object match
    cdef public object path
    cdef public int port
    cdef public object route
    cdef public str scheme
    cdef public bytes target
    cdef public object tls

@cython.freelist(32)
cdef class Response:
    cdef public ResponseHead head
    cdef public object body
    cdef public str reason
    cdef public bytes extra
    cdef public object drop
