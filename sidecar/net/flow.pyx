# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Flows move bodies from one channel to another, in pieces of its buffer and framed anew.

Laws. Bytes stay in the source's buffer until the sink has taken them. A flow yields to the hub at least every MiB.
One that keeps what passes can be sent again from its beginning, to another sink.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdio cimport snprintf
from libc.string cimport memcpy

from ..wire.head cimport BY_CHUNKS, BY_CLOSE, BY_LENGTH
from .channel cimport BY_STREAM, HUP, LARGE, READ, SMALL, TURN, WRITE, Channel, wait
from .turns cimport now, take_turns

from ..errors import Broken

cdef enum:
    MIDDLE = 32768      # a body on its way to or from a stream, of which a connection has many

cdef enum:
    DONE = 0
    WANT_READ = 1
    WANT_WRITE = 2
    MORE = 3

cdef class Flow:
    """A body on its way from one channel to another, framed anew. Moves only when pumped.

    `keep`: bytes of it that are kept as they pass, so that it can be sent again; -1: none.
    """

    def __init__(self, Channel source, Channel sink, int framing_in, long long length, int framing_out,
                 double read_timeout, double write_timeout, long long limit=-1, Py_ssize_t keep=-1):
        self.source = source
        self.sink = sink
        # A channel that frames by itself says where a message ends, whatever its head said.
        self.framing_in = BY_STREAM if source.framed else framing_in
        self.framing_out = BY_STREAM if sink.framed else framing_out
        self.remaining = length
        self.read_timeout = read_timeout
        self.write_timeout = write_timeout
        self.limit = limit
        self.most = keep
        if keep >= 0:
            self.copy = bytearray()
        if self.framing_in == BY_CHUNKS:
            self.decoder = ChunkedDecoder()
        self.state = MORE
        if self.framing_in == BY_LENGTH and length == 0:
            self.final = True
            if sink.held is not None:
                self._take_held()
            self._close_framing()

    @property
    def whole(self):
        """Whether all of the body is still to be had: nothing of it has left the source's buffer, or it was kept."""
        return not self.begun or self.copy is not None

    @property
    def kept(self):
        """What was read of the body, if it was kept."""
        return None if self.copy is None else bytes(self.copy)

    @property
    def content(self):
        """The whole body, when all of it was read and kept; None also when there is more to it than bytes."""
        if not self.final or 0 <= self.limit < self.moved or self._trailer_lines():
            return None
        return self.kept

    cpdef forget(self):
        """Keep no more of it."""
        self.copy = None

    cpdef again(self, Channel sink, int framing_out, double write_timeout):
        """Begin anew, to another sink; only with what was kept."""
        cdef bytes front = self.kept
        # What was read last may not have left: it is among what was kept, and from now on only there.
        if self.taken:
            self.begun = True
            if self.source.fd >= 0:
                self.source.start += self.taken
            self.taken = 0
        self.first = self.last = 0
        self.sink = sink
        self.framing_out = BY_STREAM if sink.framed else framing_out
        self.write_timeout = write_timeout
        self.done = False
        self.broken = None
        self.state = MORE
        if front:
            if self.framing_out == BY_CHUNKS:
                front = b"%x\r\n%b\r\n" % (len(front), front)
            sink.held = front if sink.held is None else sink.held + front
        if self.final:
            if sink.held is not None:
                self._take_held()
            self._close_framing()

    cdef int _keep(self, const unsigned char *data, Py_ssize_t size) except -1:
        cdef Py_ssize_t have = PyByteArray_GET_SIZE(self.copy)
        if have + size > self.most:
            self.copy = None
            return 0
        PyByteArray_Resize(self.copy, have + size)
        memcpy(PyByteArray_AS_STRING(self.copy) + have, data, size)
        return 0

    def _take_held(self):
        self.front = self.sink.held
        self.sink.held = None
        self._piece(PyBytes_AS_STRING(self.front), PyBytes_GET_SIZE(self.front))

    cdef void _piece(self, const void *data, size_t size) noexcept:
        self.pieces[self.last].iov_base = <void *>data
        self.pieces[self.last].iov_len = size
        self.last += 1

    cdef int step(self) except -1:
        """Move without blocking as much as one turn allows; says why it stopped."""
        cdef Py_ssize_t count
        self.budget = TURN
        # The pieces point into the source's buffer, which a closed channel has given back.
        if self.source.fd < 0 or self.sink.fd < 0:
            raise Broken("source" if self.source.fd < 0 else "sink", "reset")
        while True:
            while self.first < self.last:
                count = self.sink._sendv(&self.pieces[self.first], self.last - self.first)
                if count == -1:
                    return WANT_WRITE
                if count == -2:
                    raise Broken("sink", "reset")
                self.budget -= count
                while self.first < self.last and count >= <Py_ssize_t>self.pieces[self.first].iov_len:
                    count -= self.pieces[self.first].iov_len
                    self.first += 1
                if count:
                    self.pieces[self.first].iov_base = <char *>self.pieces[self.first].iov_base + count
                    self.pieces[self.first].iov_len -= count
            self.first = self.last = 0
            self.front = None
            if self.taken:
                self.source.start += self.taken
                self.taken = 0
                self.begun = True
            if self.final:
                self.done = True
                if self.half_close:
                    self.sink.shutdown_write()
                elif self.framing_out == BY_STREAM:
                    self.sink._finish(self._trailer_lines())
                return DONE
            if self.budget <= 0:
                return MORE
            if self.source.start == self.source.stop:
                count = self._fill()
                if count == -1:
                    if self.sink.held is not None:
                        self._take_held()
                        continue
                    self.source._release()
                    return WANT_READ
                if count == 0:
                    if self.framing_in != BY_CLOSE and self.framing_in != BY_STREAM:
                        raise Broken("source", "ended")
                    self.final = True
                    if self.sink.held is not None:
                        self._take_held()
                    self._close_framing()
                    continue
                if count == -2:
                    raise Broken("source", "reset")
            self._produce()

    cdef int _fill(self) except -99:
        cdef Channel source = self.source
        cdef Py_ssize_t count, large = MIDDLE if source.framed or self.sink.framed else LARGE
        if not source.ready & READ:
            return -1
        source.start = source.stop = 0
        if source.size < large and (source.buffer == NULL or self.remaining > SMALL or self.moved > SMALL):
            source._release()
            source._grow(large if self.remaining > SMALL or self.moved > SMALL else SMALL)
        count = source._recv(source.buffer, source.size)
        if count > 0:
            source.stop = count
            return 1
        return count

    cdef int _produce(self) except -1:
        cdef unsigned char *data = self.source.buffer + self.source.start
        cdef Py_ssize_t size = self.source.stop - self.source.start
        if self.framing_in == BY_LENGTH:
            if size > self.remaining:
                size = self.remaining
            self.remaining -= size
            self.taken = size
            self.final = self.remaining == 0
        elif self.framing_in == BY_CHUNKS:
            self.begun = True
            size = self.decoder.decode(data, size, &self.taken)
            self.final = self.decoder.done
            # What is not passed on (sizes, extensions) takes time too.
            self.budget -= self.taken - size
        else:
            self.taken = size
            self.final = self.framing_in == BY_STREAM and self.source._ended()
        self.moved += size
        if 0 <= self.limit < self.moved:
            raise Broken("source", "too_large")
        if self.copy is not None:
            self._keep(data, size)
        if not size and not self.final:
            return 0
        if self.sink.held is not None:
            self._take_held()
        if self.framing_out == BY_CHUNKS and size:
            self._piece(self.prefix, snprintf(self.prefix, 24, b"%zx\r\n", size))
        if size:
            self._piece(data, size)
        if self.final:
            self._close_framing()
        elif self.framing_out == BY_CHUNKS:
            self._piece(b"\r\n", 2)
        return 0

    cdef void _close_framing(self):
        if self.framing_out != BY_CHUNKS:
            return
        self.tail = b"0\r\n%b\r\n" % self._trailer_lines()
        # Behind data there is still that chunk's own end to write.
        if self.last and self.pieces[self.last - 1].iov_base == <void *>(self.source.buffer + self.source.start):
            self.tail = b"\r\n" + self.tail
        self._piece(PyBytes_AS_STRING(self.tail), PyBytes_GET_SIZE(self.tail))

    cdef bytes _trailer_lines(self):
        return self.source._trailers() if self.decoder is None else self.decoder.trailer_lines()

    def __repr__(self):
        return f"<Flow {self.source!r} -> {self.sink!r} moved={self.moved} done={self.done}>"


FINISHED = 0
STOPPED = 1

cdef int _block(Flow flow, double t, double idle) except -1:
    """Note when a flow that waits has waited too long."""
    cdef double timeout = flow.read_timeout if flow.state == WANT_READ else flow.write_timeout
    flow.deadline = t + timeout if timeout else 0
    return 0


cpdef int pump(Flow a, Flow b=None, Channel stop=None, Channel watch=None, bint lead=False, double idle=0,
               double until=0) except -1:
    """Move one flow, or two in opposite directions, until both are done: FINISHED.

    stop:  return STOPPED as soon as this channel has something to read.
    watch: raise Broken("sink", "ended") as soon as this channel's peer leaves.
    lead:  `b` leads: its end ends the pump, and a failure of `a` is only noted in `a.broken`.
    idle:  seconds without a byte in either direction after which Broken(…, "timeout") is raised.
    until: monotonic moment after which Broken("source", "timeout") is raised whatever moves (0: never).
    Raises Broken or Malformed; `broken` of the flow that failed holds the error.
    """
    cdef Channel one = a.source, two = a.sink
    cdef int want_one, want_two
    cdef double t, left, silent_until = 0
    cdef long long mark_a = -1, mark_b = -1, mark
    while True:
        if not a.done:
            try:
                a.state = a.step()
            except Exception as error:
                a.broken = error
                if not lead:
                    raise
                a.done = True
        if b is not None and not b.done:
            try:
                b.state = b.step()
            except Exception as error:
                b.broken = error
                raise
        if b is None or b.done:
            if a.done or lead:
                return FINISHED
        if stop is not None and stop._has_news():
            return STOPPED
        if watch is not None and watch.ready & HUP:
            raise Broken("sink", "ended")
        if until and now() >= until:
            raise Broken("source", "timeout")
        if a.state == MORE and not a.done or b is not None and not b.done and b.state == MORE:
            take_turns()
            continue
        # Each flow is blocked on one of the two channels.
        t = now()
        want_one = want_two = 0
        left = 0
        if not a.done:
            if a.state == WANT_READ:
                want_one |= READ
            else:
                want_two |= WRITE
            mark = a.source.received + a.sink.sent
            if mark != mark_a:
                mark_a = mark
                _block(a, t, idle)
                silent_until = t + idle
            if a.deadline:
                left = max(a.deadline - t, 0.0001)
        if b is not None and not b.done:
            if b.state == WANT_READ:
                want_two |= READ
            else:
                want_one |= WRITE
            mark = b.source.received + b.sink.sent
            if mark != mark_b:
                mark_b = mark
                _block(b, t, idle)
                silent_until = t + idle
            if b.deadline and (not left or b.deadline - t < left):
                left = max(b.deadline - t, 0.0001)
        if idle and (not left or silent_until - t < left):
            left = max(silent_until - t, 0.0001)
        if until and (not left or until - t < left):
            left = max(until - t, 0.0001)
        if stop is not None:
            if stop is one:
                want_one |= READ
            else:
                want_two |= READ
        if watch is not None:
            if watch is one:
                want_one |= HUP
            else:
                want_two |= HUP
        if wait(one, want_one, two, want_two, left):
            continue
        t = now() + 0.001
        if until and until <= t:
            continue
        if idle and silent_until <= t:
            raise Broken("source", "timeout")
        if b is not None and not b.done and b.deadline and b.deadline <= t:
            b.broken = Broken("source" if b.state == WANT_READ else "sink", "timeout")
            raise b.broken
        if not a.done and a.deadline and a.deadline <= t:
            a.broken = Broken("source" if a.state == WANT_READ else "sink", "timeout")
            if not lead:
                raise a.broken
            a.done = True
