# cython: language_level=3
"""C side of server.py."""

cdef class State:
    cdef public Py_ssize_t active
    cdef public Py_ssize_t fails
    cdef public double accessed
    cdef public double checked
    cdef public bint healthy
    cdef public double ejected_until
    cdef public double recovered
    cdef public double time
    cdef public double timed

cdef class Server:
    cdef public str name
    cdef public object pool
    cdef public State state
    cdef public Py_ssize_t weight
    cdef public Py_ssize_t effective
    cdef public Py_ssize_t credit
    cdef public object key
    cdef public Py_ssize_t limit
    cdef public Py_ssize_t max_fails
    cdef public double fail_timeout
    cdef public double slow_start
    cdef public bint backup
    cdef public bint down
    cdef public object on_free
    cdef public object observer
    cpdef bint is_usable(self, double now)
    cpdef bint has_room(self)
    cpdef bint is_fit(self, double now)
    cpdef bint is_banned(self, double now)
    cpdef failed(self, double now, double seconds=*)
    cpdef succeeded(self, double now, int status, double seconds)
    cpdef take(self, double now)
    cpdef give_back(self)
