# cython: language_level=3
"""C side of line.pyx."""

cdef class Line:
    cdef char *data
    cdef Py_ssize_t size
    cdef Py_ssize_t room
    cdef char *_more(self, Py_ssize_t size) except NULL
    cpdef int text(self, str text) except -1
    cpdef int number(self, long long number) except -1
    cpdef int millis(self, double seconds) except -1
    cpdef bint plain(self, bytes data, Py_ssize_t longest) except -1
    cpdef bytes take(self)
