# cython: language_level=3
"""C side of retry.py."""

cdef class Retry:
    cdef public Py_ssize_t attempts
    cdef public Py_ssize_t body
    cdef public frozenset counted
    cdef public bint non_idempotent
    cdef public frozenset reasons
    cdef public frozenset statuses
    cdef public double timeout
