# cython: language_level=3
"""C side of table.py: what a lookup touches."""

cdef class Route:
    cdef public tuple conditions
    cdef public object handler
    cdef public bint is_tcp
    cdef public bint logged
    cdef public str name
    cdef public object settings
    cdef public str upstream

cdef class Entry:
    cdef public bint captures
    cdef public tuple conditions
    cdef public Py_ssize_t order
    cdef public object pattern
    cdef public object rank
    cdef public object regex
    cdef public Route route

cdef class _Prefix:
    cdef readonly Py_ssize_t after
    cdef readonly tuple entries
    cdef readonly _Prefix shorter

cdef class _Paths:
    cdef Py_ssize_t _after_exact
    cdef tuple _any
    cdef int _depth
    cdef dict _exact
    cdef dict _prefixes
    cdef tuple _regexes
    cdef readonly Py_ssize_t first
    cpdef Entry find(self, object request, Entry best)
    cdef Entry _search(self, object request, object path, Entry best)
    cdef Entry _walk(self, object request, object path, Entry best)

cdef class _Suffix:
    cdef readonly Py_ssize_t after
    cdef readonly _Paths paths
    cdef readonly _Suffix shorter

cdef class Router:
    cdef Py_ssize_t _after_exact
    cdef _Paths _any
    cdef int _depth
    cdef dict _exact
    cdef object _regexes
    cdef dict _wild
    cdef readonly tuple entries
    cdef readonly tuple routes
    cpdef Route choose(self, object request)
    cdef Entry _rest(self, object request, Entry best)
    cdef Entry _below(self, object request, Entry best)

cdef bint _holds(Entry entry, object request) except -1
cdef Entry _earliest(tuple group, object request, Entry best)
