# cython: language_level=3
"""C side of channel.pyx, for channels of other kinds."""

from ..wire.body cimport ChunkedDecoder
from ..wire.head cimport Head

cdef extern from "sys/uio.h" nogil:
    cdef struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "sys/epoll.h" nogil:
    ctypedef union epoll_data_t:
        void *ptr
    cdef struct epoll_event:
        unsigned int events
        epoll_data_t data

cdef extern from "greenlet.h":
    ctypedef class greenlet.greenlet [object PyGreenlet]:
        pass

cdef class Poller:
    cdef int epfd
    cdef int count
    cdef int at
    cdef epoll_event events[128]
    cdef readonly greenlet hub
    cdef readonly object loop
    cdef object watcher
    cdef void _forget(self, void *channel) noexcept

cdef class Channel:
    cdef readonly int fd
    cdef Poller poller
    cdef greenlet waiter
    cdef int interest
    cdef int ready
    cdef bint registered
    cdef bint timed_out
    cdef double deadline
    cdef double timer_at
    cdef object timer
    cdef unsigned char *buffer
    cdef Py_ssize_t start
    cdef Py_ssize_t stop
    cdef Py_ssize_t size
    cdef bytes held
    cdef public object parked       # called when something happens on a channel that rests in a pool
    cdef readonly long long received
    cdef readonly long long sent
    cdef Py_ssize_t _recv(self, unsigned char *into, Py_ssize_t size) noexcept
    cdef Py_ssize_t _sendv(self, iovec *pieces, int count) noexcept
    cdef int _event(self, unsigned int mask) except -1
    cdef int _register(self) except -1
    cdef void _unregister(self) noexcept
    cdef int _arm(self, double timeout) except -1
    cdef int _grow(self, Py_ssize_t size) except -1
    cdef void _release(self) noexcept
    cpdef park(self, callback, double timeout)
    cpdef bint unpark(self) except -1
    cpdef int read_head(self, Head head, double first, double total, Channel watch=*) except -1
    cpdef hold(self, bytes data)
    cpdef send(self, bytes data, double timeout)

cpdef int pump(Flow a, Flow b=*, Channel stop=*, Channel watch=*, bint lead=*, double idle=*,
               double until=*) except -1

cdef class Flow:
    cdef readonly Channel source
    cdef readonly Channel sink
    cdef int framing_in
    cdef int framing_out
    cdef long long remaining
    cdef long long limit
    cdef double read_timeout
    cdef double write_timeout
    cdef double deadline
    cdef ChunkedDecoder decoder
    cdef iovec pieces[4]
    cdef int first
    cdef int last
    cdef char prefix[24]
    cdef bytes tail
    cdef bytes front
    cdef Py_ssize_t taken
    cdef Py_ssize_t budget
    cdef bint final
    cdef public bint half_close     # at the end of the source, end the sink's sending side (a tunnel)
    cdef int state
    cdef readonly bint done
    cdef readonly object broken
    cdef readonly long long moved
    cdef readonly bint whole        # nothing of the body has left the source's buffer: another flow can begin anew
    cdef int step(self) except -1
    cdef int _produce(self) except -1
    cdef int _fill(self) except -99
    cdef void _piece(self, const void *data, size_t size) noexcept
    cdef void _close_framing(self)
