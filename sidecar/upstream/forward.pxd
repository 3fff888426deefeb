# cython: language_level=3
"""C side of forward.py."""

from ..message cimport Request, Response
from .exchange cimport Exchange, Terms
from .group cimport Group
from .retry cimport Retry
from .server cimport Server

cdef class Forward:
    cdef Group _group
    cdef object _guard
    cdef Retry _retry
    cdef Terms _terms
    cdef Py_ssize_t _buffer
    cpdef Response _serve(self, Request request)
    cdef Response _ask(self, Request request, Server server, double began, double now)
    cdef Response _attempt(self, Request request, Server server, object connection, double began, double started)
