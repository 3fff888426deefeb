# cython: language_level=3
"""C side of least_connections.py."""

cimport cython

from ...message cimport Request
from ..server cimport Server

cdef class LeastConnections:
    cdef list _servers
    @cython.locals(server=Server, least=list, active=Py_ssize_t, share=Py_ssize_t, its_active=Py_ssize_t, its_share=Py_ssize_t, ours=Py_ssize_t, its=Py_ssize_t)
    cpdef Server pick(self, Request request, double now, object tried)
