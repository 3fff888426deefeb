# cython: language_level=3
"""C side of access.py."""

cimport cython

from ..message cimport Attempt, Request
from ..wire.head cimport RequestHead
from .line cimport Line

cdef class _Texts:
    cdef str _prefix
    cdef readonly dict known
    @cython.locals(json=str)
    cpdef str of(self, text)

cdef class AccessLog:
    cdef bint _console
    cdef object _date
    cdef Line _line
    cdef long long _millis
    cdef _Texts _reasons
    cdef _Texts _routes
    cdef str _second
    cdef str _stamp
    cdef readonly _Texts _texts
    cdef _Texts _versions
    cdef object _write

    @cython.locals(millis=cython.longlong, line=Line, attempt=Attempt, place=cython.int)
    cpdef record(self, Request request, int status, str reason, long long received, long long sent, double duration)
    cpdef refused(self, str client, str listener, int status, str reason, long long sent)
    @cython.locals(attempts=list, head=RequestHead, last=Attempt, texts=_Texts)
    cdef _asked(self, Line line, Request request)
    cdef _secured(self, Line line, object tls)
    cdef _attempt(self, Line line, Attempt attempt)
    cdef _renew(self, long long millis)
