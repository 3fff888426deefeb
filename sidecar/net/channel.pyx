# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Channels move bytes: one socket, its input buffer, and the greenlet that waits on it.

Laws. A socket is watched once, edge-triggered, by the poller's own epoll, which gevent's loop watches: waiting
costs no system call. Deadlines exist only inside a wait. Buffers are borrowed while busy and given back when
idle. Whatever blocks yields to the hub. Longer than other files because poller and channel share one layout.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.errno cimport EAGAIN, EEXIST, EINTR, errno
from libc.string cimport memmove
from posix.unistd cimport close as c_close

from ..wire.head cimport Head
from .turns cimport now, take_turns

import gevent

from ..errors import Broken

cdef extern from "greenlet.h":
    void PyGreenlet_Import()
    greenlet PyGreenlet_GetCurrent()
    object PyGreenlet_Switch(greenlet g, void *args, void *kwargs)

cdef extern from "sys/socket.h" nogil:
    cdef struct msghdr:
        void *msg_name
        unsigned int msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags
    cdef struct linger:
        int l_onoff
        int l_linger
    int MSG_DONTWAIT, MSG_NOSIGNAL, MSG_PEEK, SHUT_WR, SOL_SOCKET, SO_LINGER, SO_ERROR
    Py_ssize_t recv(int fd, void *into, size_t size, int flags)
    Py_ssize_t send(int fd, const void *data, size_t size, int flags)
    Py_ssize_t sendmsg(int fd, const msghdr *message, int flags)
    int shutdown(int fd, int how)
    int setsockopt(int fd, int level, int name, const void *value, unsigned int size)
    int getsockopt(int fd, int level, int name, void *value, unsigned int *size)

cdef extern from "sys/epoll.h" nogil:
    unsigned int EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLHUP, EPOLLERR, EPOLLET
    int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int operation, int fd, epoll_event *event)
    int epoll_wait(int epfd, epoll_event *events, int size, int timeout)

PyGreenlet_Import()

cdef enum:
    KEEP_BUFFERS = 64
    KEEP_LARGE = 16

# What a read of a head ends with.
HEAD = 0                # the head is complete
CLOSED = 1              # the peer ended or reset the connection before the first byte
TORN = 2                # … in the middle of the head
IDLE = 3                # no first byte in time
SLOW = 4                # the head was not complete in time
GONE = 5                # the watched channel's peer left meanwhile

cdef unsigned char *free_small[KEEP_BUFFERS]
cdef int free_small_count = 0
cdef unsigned char *free_large[KEEP_LARGE]
cdef int free_large_count = 0

cdef unsigned char *borrow(Py_ssize_t size) except NULL:
    global free_small_count, free_large_count
    cdef unsigned char *buffer
    if size == SMALL and free_small_count:
        free_small_count -= 1
        return free_small[free_small_count]
    if size == LARGE and free_large_count:
        free_large_count -= 1
        return free_large[free_large_count]
    buffer = <unsigned char *>PyMem_Malloc(size)
    if buffer == NULL:
        raise MemoryError
    return buffer

cdef void give_back(unsigned char *buffer, Py_ssize_t size) noexcept:
    global free_small_count, free_large_count
    if size == SMALL and free_small_count < KEEP_BUFFERS:
        free_small[free_small_count] = buffer
        free_small_count += 1
    elif size == LARGE and free_large_count < KEEP_LARGE:
        free_large[free_large_count] = buffer
        free_large_count += 1
    else:
        PyMem_Free(buffer)


cdef class Poller:
    """One epoll for all channels of a hub, itself watched by the hub's loop."""

    def __init__(self, hub):
        self.hub = hub
        self.loop = hub.loop
        self.epfd = epoll_create1(EPOLL_CLOEXEC)
        if self.epfd < 0:
            raise OSError(errno, "epoll_create1")
        self.watcher = self.loop.io(self.epfd, 1)
        self.watcher.start(self._dispatch)

    def _dispatch(self):
        cdef epoll_event *event
        self.count = epoll_wait(self.epfd, self.events, 128, 0)
        self.at = 0
        while self.at < self.count:
            event = &self.events[self.at]
            self.at += 1
            if event.data.ptr != NULL:
                try:
                    (<Channel>event.data.ptr)._event(event.events)
                except Exception as error:
                    self.hub.handle_error(self, type(error), error, error.__traceback__)
        self.count = 0

    cdef void _forget(self, void *channel) noexcept:
        """Events already fetched for a channel that closes meanwhile must not reach its memory."""
        cdef int i
        for i in range(self.at, self.count):
            if self.events[i].data.ptr == channel:
                self.events[i].data.ptr = NULL


cdef Poller _poller = None

cdef Poller poller():
    """The poller of the current hub (a fork or a test may bring a new one)."""
    global _poller
    if _poller is None or _poller.hub is not gevent.get_hub():
        _poller = Poller(gevent.get_hub())
    return _poller


cdef int wait(Channel a, int want_a, Channel b, int want_b, double timeout) except -1:
    """Wait until `a` or `b` is ready for what is wanted: 1, or 0 when `timeout` seconds (0: none) are over."""
    if a.fd < 0 or a.waiter is not None or (b is not None and (b.fd < 0 or b.waiter is not None)):
        raise RuntimeError("channel is closed, or another greenlet waits on it")
    a._register()
    if b is not None:
        b._register()
        b.waiter = PyGreenlet_GetCurrent()
        b.interest = want_b
        a.waiter = b.waiter
    else:
        a.waiter = PyGreenlet_GetCurrent()
    a.interest = want_a
    try:
        a._arm(timeout)
        PyGreenlet_Switch(a.poller.hub, NULL, NULL)
    finally:
        a.waiter = None
        a.deadline = 0
        if b is not None:
            b.waiter = None
    if a.timed_out:
        a.timed_out = False
        return 0
    return 1


cdef class Channel:
    """A connected socket. `readable`: whether to try reading before waiting (an accepted one has data soon)."""

    def __cinit__(self, int fd, bint readable=False):
        self.fd = fd
        self.ready = WRITE | (READ if readable else 0)
        self.poller = poller()

    def __dealloc__(self):
        if self.fd >= 0 and not self.framed:
            if self.poller is not None:
                self._unregister()
            c_close(self.fd)
        if self.buffer != NULL:
            give_back(self.buffer, self.size)

    def fileno(self):
        return self.fd

    # -- events

    cdef int _register(self) except -1:
        cdef epoll_event event
        if not self.registered:
            event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET
            event.data.ptr = <void *>self
            if epoll_ctl(self.poller.epfd, EPOLL_CTL_ADD, self.fd, &event) != 0:
                raise OSError(errno, "epoll_ctl")
            self.registered = True
        return 0

    cdef void _unregister(self) noexcept:
        # Closing is not enough: a forked child may hold the socket a moment longer, and the kernel our address.
        cdef epoll_event unused
        if self.registered:
            epoll_ctl(self.poller.epfd, EPOLL_CTL_DEL, self.fd, &unused)
            self.registered = False
            self.poller._forget(<void *>self)

    cdef int _detach(self) noexcept:
        """Give the descriptor up to another channel; this one is closed then."""
        cdef int fd = self.fd
        self._unregister()
        self.fd = -1
        if self.timer is not None:
            self.timer.close()
            self.timer = None
        return fd

    cdef int _event(self, unsigned int mask) except -1:
        if mask & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR):
            self.ready |= READ
        if mask & (EPOLLOUT | EPOLLHUP | EPOLLERR):
            self.ready |= WRITE
        if mask & (EPOLLRDHUP | EPOLLHUP | EPOLLERR):
            self.ready |= HUP
        if self.waiter is not None:
            if self.ready & self.interest:
                PyGreenlet_Switch(self.waiter, NULL, NULL)
        elif self.parked is not None and self.ready & READ:
            self.parked(self)
        return 0

    cdef int _arm(self, double timeout) except -1:
        """The timer is left running when a wait ends in time; the next wait mostly just moves the deadline."""
        if timeout <= 0:
            self.deadline = 0
            return 0
        self.deadline = now() + timeout
        if self.timer is None or self.timer_at > self.deadline + 0.002:
            self._set_timer(timeout)
        return 0

    def _set_timer(self, double timeout):
        if self.timer is not None:
            self.timer.close()
        self.timer_at = now() + timeout
        self.timer = self.poller.loop.timer(timeout)
        self.timer.start(self._on_timer)

    def _on_timer(self):
        cdef double left
        self.timer.close()
        self.timer = None
        if self.deadline == 0:
            return
        left = self.deadline - now()
        if left > 0.001:
            self._set_timer(left)
        elif self.waiter is not None:
            self.timed_out = True
            PyGreenlet_Switch(self.waiter, NULL, NULL)
        elif self.parked is not None:
            self.parked(self)

    # -- resting in a pool

    cpdef park(self, callback, double timeout):
        """Rest: `callback(channel)` is called when the peer does anything, or after `timeout` seconds."""
        self._release()
        self._register()
        self.parked = callback
        self._arm(timeout)

    cpdef bint unpark(self) except -1:
        """Back to work. Returns False when the peer has ended the connection or sent something unasked."""
        self.parked = None
        self.deadline = 0
        if self.fd < 0 or self.ready & HUP or self.stop > self.start:
            return False
        self.ready |= READ
        return not self._has_news()

    # -- bytes in and out: what another kind of channel does in its own way

    cdef bint _has_news(self) noexcept:
        """Whether there is something to read, be it an end. A set READ only says that nobody has looked lately."""
        cdef unsigned char byte
        if self.stop > self.start:
            return True
        if self.ready & READ and recv(self.fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0 and errno == EAGAIN:
            self.ready &= ~READ
        return bool(self.ready & READ)

    cdef bint _ended(self) noexcept:
        """Of a channel that frames by itself: whether nothing comes behind what was read."""
        return False

    cdef bytes _trailers(self):
        """Of a channel that frames by itself: the trailer fields of the message that ended, as lines."""
        return b""

    cdef int _finish(self, bytes trailers) except -1:
        """Of a channel that frames by itself: end the message that is being sent."""
        return 0

    cdef Py_ssize_t _recv(self, unsigned char *into, Py_ssize_t size) noexcept:
        """Bytes read; 0: ended, -1: nothing there yet, -2: broken."""
        cdef Py_ssize_t count
        while True:
            count = recv(self.fd, into, size, MSG_DONTWAIT)
            if count > 0:
                self.received += count
                # A short read drained the socket: what comes later raises a new event. Not so after a FIN.
                if count < size and not self.ready & HUP:
                    self.ready &= ~READ
                return count
            if count == 0:
                return 0
            if errno == EAGAIN:
                self.ready &= ~READ
                return -1
            if errno != EINTR:
                return -2

    cdef Py_ssize_t _sendv(self, iovec *pieces, int count) noexcept:
        """Bytes taken; -1: no room now, -2: broken."""
        cdef msghdr message
        cdef Py_ssize_t size
        while True:
            if count == 1:
                size = send(self.fd, pieces.iov_base, pieces.iov_len, MSG_DONTWAIT | MSG_NOSIGNAL)
            else:
                message = msghdr(NULL, 0, pieces, count, NULL, 0, 0)
                size = sendmsg(self.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL)
            if size >= 0:
                self.sent += size
                return size
            if errno == EAGAIN:
                self.ready &= ~WRITE
                return -1
            if errno != EINTR:
                return -2

    cdef int _grow(self, Py_ssize_t size) except -1:
        """Make the input buffer `size` bytes, keeping what is in it."""
        cdef unsigned char *bigger
        if self.buffer == NULL:
            self.buffer = borrow(size)
            self.size = size
            self.start = self.stop = 0
            return 0
        bigger = borrow(size)
        memmove(bigger, self.buffer + self.start, self.stop - self.start)
        give_back(self.buffer, self.size)
        self.buffer = bigger
        self.stop -= self.start
        self.start = 0
        self.size = size
        return 0

    cdef void _release(self) noexcept:
        if self.buffer != NULL and self.start == self.stop:
            give_back(self.buffer, self.size)
            self.buffer = NULL
            self.size = self.start = self.stop = 0

    @property
    def pending(self):
        """Bytes read from the socket that nobody has taken yet."""
        return self.stop - self.start

    @property
    def peer_finished(self):
        """Whether the peer is known to have ended its side."""
        return bool(self.ready & HUP)

    cpdef int read_head(self, Head head, double first, double total, Channel watch=None) except -1:
        """Read one head. `first`: seconds for its first byte, `total`: seconds for the rest (0: no bound).

        Returns HEAD, CLOSED, TORN, IDLE, SLOW or GONE; raises Malformed.
        """
        cdef Py_ssize_t count
        cdef bint begun = self.stop > self.start
        cdef double until = now() + total if begun and total else 0
        cdef double left
        if begun:
            count = head.feed_bytes(self.buffer + self.start, self.stop - self.start)
            if count:
                self.start += count
                return HEAD
        while True:
            count = -1
            if self.ready & READ:
                if self.buffer == NULL:
                    self._grow(SMALL)
                elif self.start == self.stop:
                    self.start = self.stop = 0
                elif self.stop == self.size:
                    self._grow(self.size if self.start else self.size * 2)
                count = self._recv(self.buffer + self.stop, self.size - self.stop)
            if count > 0:
                self.stop += count
                count = head.feed_bytes(self.buffer + self.start, self.stop - self.start)
                if count:
                    self.start += count
                    return HEAD
                if not begun:
                    begun = True
                    until = now() + total if total else 0
                continue
            if count != -1:
                return TORN if begun else CLOSED
            if begun:
                left = until - now() if until else 0
                if until and left <= 0:
                    return SLOW
            else:
                self._release()
                left = first
            if watch is None:
                if not wait(self, READ, None, 0, left):
                    return SLOW if begun else IDLE
            else:
                if watch.ready & HUP:
                    return GONE
                if not wait(self, READ, watch, HUP, left):
                    return SLOW if begun else IDLE

    def read(self, Py_ssize_t size, double timeout):
        """Up to `size` bytes; b"" at the end. Raises Broken."""
        cdef Py_ssize_t count
        cdef bytes data
        while self.start == self.stop:
            if self.buffer == NULL:
                self._grow(SMALL)
            self.start = self.stop = 0
            count = self._recv(self.buffer, self.size) if self.ready & READ else -1
            if count > 0:
                self.stop = count
            elif count == 0:
                return b""
            elif count == -2:
                raise Broken("source", "reset")
            elif not wait(self, READ, None, 0, timeout):
                raise Broken("source", "timeout")
        count = min(size, self.stop - self.start)
        data = self.buffer[self.start:self.start + count]
        self.start += count
        return data

    def fill(self, Py_ssize_t size, double timeout):
        """Read ahead until `size` bytes are pending: True, or False when the peer ended first. Raises Broken."""
        cdef Py_ssize_t count, room = SMALL
        while self.stop - self.start < size:
            while room < size:
                room *= 2
            if self.size - self.start < size:
                self._grow(room)
            count = self._recv(self.buffer + self.stop, self.size - self.stop) if self.ready & READ else -1
            if count > 0:
                self.stop += count
            elif count == 0:
                return False
            elif count == -2:
                raise Broken("source", "reset")
            elif not wait(self, READ, None, 0, timeout):
                raise Broken("source", "timeout")
        return True

    def peek(self, Py_ssize_t offset=0):
        """A copy of what is pending, from `offset` on."""
        if offset >= self.stop - self.start:
            return b""
        return <bytes>self.buffer[self.start + offset:self.stop]

    def skip(self, Py_ssize_t size):
        """Drop `size` pending bytes."""
        self.start += min(size, self.stop - self.start)

    def unread(self, bytes data):
        """Put bytes back in front of what is pending."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data), pending = self.stop - self.start
        cdef Py_ssize_t room = SMALL
        while room < size + pending:
            room *= 2
        if self.buffer == NULL or self.size < size + pending:
            self._grow(room)
        memmove(self.buffer + size, self.buffer + self.start, pending)
        memmove(self.buffer, PyBytes_AS_STRING(data), size)
        self.start = 0
        self.stop = size + pending

    cpdef hold(self, bytes data):
        """Keep a head back until the first bytes of its body, or `flush`, so that both leave in one packet."""
        self.held = data if self.held is None else self.held + data

    def forget(self):
        """Drop what is held."""
        self.held = None

    cpdef send(self, bytes data, double timeout):
        """Send what is held and `data`, all of it. Raises Broken."""
        if self.held is not None:
            data = self.held + data
            self.held = None
        cdef iovec piece
        cdef Py_ssize_t count
        piece.iov_base = PyBytes_AS_STRING(data)
        piece.iov_len = PyBytes_GET_SIZE(data)
        while piece.iov_len:
            count = self._sendv(&piece, 1)
            if count == -2:
                raise Broken("sink", "reset")
            if count == -1:
                if not wait(self, WRITE, None, 0, timeout):
                    raise Broken("sink", "timeout")
                continue
            piece.iov_base = <char *>piece.iov_base + count
            piece.iov_len -= count

    def flush(self, double timeout):
        """Send what is held."""
        if self.held is not None:
            self.send(b"", timeout)

    def wait_connected(self, double timeout):
        """After a connect in progress: the errno it ended with (0: connected), or -1 when time is over."""
        cdef int error = 0
        cdef unsigned int size = sizeof(int)
        self.ready &= ~WRITE
        if not wait(self, WRITE, None, 0, timeout):
            return -1
        if getsockopt(self.fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0:
            return errno
        # What came with the connection stays known: a server may speak, and even end, at once.
        self.ready = WRITE if error else self.ready | WRITE
        return error

    # -- the end

    def shutdown_write(self):
        """Tell the peer that nothing more comes."""
        if self.fd >= 0:
            shutdown(self.fd, SHUT_WR)

    def linger(self, double timeout, Py_ssize_t limit=67108864):
        """End politely: the peer may still be sending, and closing on unread bytes would reset what it reads."""
        cdef double until = now() + timeout, left
        cdef Py_ssize_t count, turn = 0
        if self.fd < 0:
            return
        self.shutdown_write()
        self.start = self.stop = 0
        if self.buffer == NULL:
            self._grow(SMALL)
        while self.fd >= 0 and limit > 0:
            count = self._recv(self.buffer, self.size) if self.ready & READ else -1
            left = until - now()
            if count > 0 and left > 0:
                limit -= count
                turn += count
                if turn >= TURN:
                    turn = 0
                    take_turns()
                continue
            if count != -1 or left <= 0 or not wait(self, READ, None, 0, left):
                break
        self.close()

    def abort(self):
        """End with a reset: the peer must not take what it got for complete."""
        cdef linger option = linger(1, 0)
        if self.fd >= 0:
            setsockopt(self.fd, SOL_SOCKET, SO_LINGER, &option, sizeof(linger))
        self.close()

    def close(self):
        """Give back descriptor, timer and buffer; a greenlet that waits here is woken to find it closed."""
        if self.fd < 0:
            return
        self._unregister()
        c_close(self.fd)
        self._let_go()

    cdef int _let_go(self) except -1:
        """What is left to do once the descriptor is not ours any more."""
        self.fd = -1
        self.parked = None
        self.held = None
        self.start = self.stop = 0
        self._release()
        self.ready = READ | WRITE | HUP
        if self.timer is not None:
            self.timer.close()
            self.timer = None
        if self.waiter is not None:
            self.poller.loop.run_callback(self._wake)
        return 0

    def _wake(self):
        if self.waiter is not None:
            PyGreenlet_Switch(self.waiter, NULL, NULL)

    def __repr__(self):
        return f"<Channel fd={self.fd} pending={self.stop - self.start} received={self.received} sent={self.sent}>"
