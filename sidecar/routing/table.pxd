# cython: language_level=3
"""C side of table.py: what a lookup touches."""

cimport cython

from ..message cimport Request

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
    @cython.locals(group=tuple)
    cpdef Entry find(self, Request request, Entry best)
    @cython.locals(entry=Entry)
    cdef Entry _search(self, Request request, object path, Entry best)
    @cython.locals(entry=Entry, node=_Prefix)
    cdef Entry _walk(self, Request request, object path, Entry best)

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
    @cython.locals(best=Entry, paths=_Paths)
    cpdef Route choose(self, Request request)
    @cython.locals(everywhere=_Paths, paths=_Paths)
    cdef Entry _rest(self, Request request, Entry best)
    @cython.locals(node=_Suffix)
    cdef Entry _below(self, Request request, Entry best)

cdef bint _holds(Entry entry, Request request) except -1
@cython.locals(entry=Entry)
cdef Entry _earliest(tuple group, Request request, Entry best)
