# cython: language_level=3
"""C side of body.pyx, for the channel that decodes inside its own buffer."""

cdef class ChunkedDecoder:
    cdef readonly bint done
    cdef int state
    cdef long long left             # bytes of the current chunk still to come
    cdef int digits
    cdef Py_ssize_t extension       # bytes of the current chunk's extension so far
    cdef long long extensions       # bytes of all extensions so far
    cdef long long decoded          # bytes of data so far
    cdef Py_ssize_t max_extension
    cdef Py_ssize_t max_trailer
    cdef bytearray trailer
    cdef list fields
    cdef Py_ssize_t decode(self, unsigned char *data, Py_ssize_t size, Py_ssize_t *consumed) except -1
    cdef int _trailer_byte(self, unsigned char byte) except -1
    cdef bytes trailer_lines(self)

cdef bint may_trail(bytes name)
