# cython: language_level=3
"""C side of channel.pyx, for channels of other kinds."""

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

cdef enum:
    READ = 1
    WRITE = 2
    HUP = 4             # the other end has finished sending, or is gone

cdef enum:
    SMALL = 16384       # a head, or a small message with its head
    LARGE = 262144      # a body on its way
    TURN = 1048576      # bytes that are moved before others get their turn
    BY_STREAM = 4       # a framing beside those of heads: the channel itself says where a message ends

cdef unsigned char *borrow(Py_ssize_t size) except NULL
cdef void give_back(unsigned char *buffer, Py_ssize_t size) noexcept

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
    cdef readonly bint framed       # frames messages by itself: a stream, whose descriptor is its connection's
    cdef public object parked       # called when something happens on a channel that rests in a pool
    cdef readonly long long received
    cdef readonly long long sent
    cdef bint _has_news(self) noexcept
    cdef bint _ended(self) noexcept
    cdef bytes _trailers(self)
    cdef int _finish(self, bytes trailers) except -1
    cdef int _detach(self) noexcept
    cdef int _let_go(self) except -1
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

#: Wait until `a` or `b` is ready for what is wanted: 1, or 0 when `timeout` seconds (0: none) are over.
cdef int wait(Channel a, int want_a, Channel b, int want_b, double timeout) except -1
