# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""One line of a log, put together in place: the access log writes one for each exchange."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.string cimport memcpy

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

cdef enum:
    ENOUGH = 4096       # a buffer that grew beyond is not kept


cdef class Line:
    """A buffer that is filled for one line and taken; it is kept for the next."""

    def __dealloc__(self):
        PyMem_Free(self.data)

    cdef char *_more(self, Py_ssize_t size) except NULL:
        """Where the next `size` bytes go."""
        cdef void *grown
        cdef char *at
        if self.size + size >= self.room:
            grown = PyMem_Realloc(self.data, (self.size + size) * 2 + 512)
            if grown == NULL:
                raise MemoryError
            self.data = <char *>grown
            self.room = (self.size + size) * 2 + 512
        at = self.data + self.size
        self.size += size
        return at

    cpdef int text(self, str text) except -1:
        cdef Py_ssize_t size
        cdef const char *data = PyUnicode_AsUTF8AndSize(text, &size)
        memcpy(self._more(size), data, size)
        return 0

    cpdef int number(self, long long number) except -1:
        cdef char digits[20]
        cdef int at = 20
        # Unsigned, because the least number has no opposite.
        cdef unsigned long long left = 0 - <unsigned long long>number if number < 0 else number
        while True:
            at -= 1
            digits[at] = 48 + left % 10
            left //= 10
            if left == 0:
                break
        if number < 0:
            self._more(1)[0] = 45
        memcpy(self._more(20 - at), digits + at, 20 - at)
        return 0

    cpdef int millis(self, double seconds) except -1:
        cdef long long micros = <long long>(seconds * 1e6)
        cdef int rest = micros % 1000
        cdef char *at
        self.number(micros // 1000)
        at = self._more(4)
        at[0] = 46
        at[1] = 48 + rest // 100
        at[2] = 48 + rest // 10 % 10
        at[3] = 48 + rest % 10
        return 0

    cpdef bint plain(self, bytes data, Py_ssize_t longest) except -1:
        cdef const unsigned char *byte = <const unsigned char *>PyBytes_AS_STRING(data)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data), i
        cdef char *at
        if size > longest:
            return False
        for i in range(size):
            if byte[i] < 32 or byte[i] > 126 or byte[i] == 34 or byte[i] == 92:
                return False
        at = self._more(size + 2)
        at[0] = 34
        memcpy(at + 1, byte, size)
        at[size + 1] = 34
        return True

    cpdef bytes take(self):
        cdef bytes line = PyBytes_FromStringAndSize(self.data, self.size)
        self.size = 0
        if self.room > ENOUGH:
            PyMem_Free(self.data)
            self.data = NULL
            self.room = 0
        return line
