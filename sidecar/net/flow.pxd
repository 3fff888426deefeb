# cython: language_level=3
"""C side of flow.pyx."""

from ..wire.body cimport ChunkedDecoder
from .channel cimport Channel, iovec

cpdef int pump(Flow a, Flow b=*, Channel stop=*, Channel watch=*, bint lead=*, double idle=*,
               double until=*) except -1

cdef class Flow:
    cdef readonly Channel source
    cdef readonly Channel sink
    cdef int framing_in
    cdef int framing_out
    cdef long long remaining
    cdef long long limit
    cdef double read_timeout
    cdef double write_timeout
    cdef double deadline
    cdef ChunkedDecoder decoder
    cdef iovec pieces[4]
    cdef int first
    cdef int last
    cdef char prefix[24]
    cdef bytes tail
    cdef bytes front
    cdef Py_ssize_t taken
    cdef Py_ssize_t budget
    cdef bint final
    cdef public bint half_close     # at the end of the source, end the sink's sending side (a tunnel)
    cdef int state
    cdef readonly bint done
    cdef readonly object broken
    cdef readonly long long moved
    cdef bint begun                 # bytes of it have left the source's buffer
    cdef Py_ssize_t most            # bytes that are kept as they pass
    cdef bytearray copy             # what has passed; None: it is not kept, or has become too much
    cpdef forget(self)
    cpdef again(self, Channel sink, int framing_out, double write_timeout)
    cdef int _keep(self, const unsigned char *data, Py_ssize_t size) except -1
    cdef int step(self) except -1
    cdef int _produce(self) except -1
    cdef int _fill(self) except -99
    cdef void _piece(self, const void *data, size_t size) noexcept
    cdef void _close_framing(self)
    cdef bytes _trailer_lines(self)
