# cython: language_level=3
"""C side of pool.py: what a request looks at when it takes a connection and gives it back."""

cimport cython

from ..net.channel cimport Channel
from .rest cimport Rest

cdef class Link:
    cdef public Channel channel
    cdef public Py_ssize_t era
    cdef public object expire
    cdef public double rested
    cdef public double waited

cdef class Stack:
    cdef public Py_ssize_t era
    cdef public bint is_closed
    cdef public list items
    cdef public Py_ssize_t maxsize
    cdef public object now
    cdef public Rest rest
    @cython.locals(link=Link, seconds=double)
    cpdef take(self, double now, bint careful)
    @cython.locals(link=Link, channel=Channel, rest=Rest, items=list)
    cpdef give(self, object connection)
