# cython: language_level=3
"""C side of base.py."""

cimport cython

from ..server cimport Server

@cython.locals(server=Server)
cpdef list usable(object servers, double now, object tried)

@cython.locals(recovered=double, passed=double)
cpdef Py_ssize_t ramp(Server server, double now) except -1

cpdef Py_ssize_t weight(Server server, double now) except -1

cpdef bint is_busier(Server one, Server other, double now) except -1
