# cython: language_level=3
"""C side of calls.py."""

from .forward cimport Forward

cdef class Calls:
    cdef Forward _calls
    cdef Forward _forward
    cdef Py_ssize_t _kept
