# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""HTTP/2 (RFC 9113): one connection, many streams, and each stream a channel that speaks HTTP/1.1 to the inside.

Laws. A stream is a `Channel` that frames by itself: heads are HTTP/1.1 heads, the body is bytes, its end is the
stream's. One greenlet reads the connection; it never waits for a stream. What is sent is gathered and leaves once in
a round of the hub. Whatever a peer can make us keep or do has a bound, and each bound has a name (`refused`).
Longer than other files because connection and stream share one layout.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.string cimport memcmp, memcpy, memmove

from ..wire.h2_head cimport (OF_REQUEST, OF_RESPONSE, OF_TRAILERS, HeadBuilder, Sent, encode_request, encode_response,
                             encode_trailers, head_end, slim)
from ..wire.head cimport Head
from ..wire.hpack cimport Block, Decoder, Encoder, release, reserve
from .channel cimport HUP, LARGE, READ, SMALL, WRITE, Channel, borrow, give_back, greenlet, iovec, wait
from .turns cimport LATE, MORE, SLICE, Bringer, beginnings, now, take_turns

from collections import deque

import gevent
import gevent.event
from greenlet import GreenletExit
from greenlet import greenlet as Greenlet

from base64 import b64encode
from hashlib import sha1

from ..errors import Malformed

cdef extern from "greenlet.h":
    void PyGreenlet_Import()
    greenlet PyGreenlet_GetCurrent()

PyGreenlet_Import()

cdef enum:                  # frames
    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9

cdef enum:                  # flags
    ACK = 1
    END_STREAM = 1
    END_HEADERS = 4
    PADDED = 8
    WITH_PRIORITY = 32

cdef enum:                  # error codes (RFC 9113 section 7)
    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11

cdef enum:
    FRAME = 16384           # the largest frame, in both directions
    FIRST_WINDOW = 65535    # of a stream and of the connection until somebody says otherwise
    WINDOW = 8388608        # the connection's, for what we receive; streams have their own, which bound memory
    HIGH = 131072           # bytes that wait to be sent before streams have to
    LOW = 32768
    STUCK = 1048576         # … and before a peer that makes us answer but does not read is cut off
    PARTS = 32              # frames of one field block
    SHARE = 4               # streams of a connection that begin before those of the next one do
    WIDE = 262144           # a stream's window once somebody takes what comes
    MOST_WIDE = 16          # … for so many streams of a connection, or memory would have no bound worth its name
    CALM = 64               # streams that end well before a server that refused some is thought to take one more
    RESTING = 256           # greenlets that are kept for the next requests

cdef enum:                  # what can be late
    LATE_WRITE = 0
    LATE_BLOCK = 1
    LATE_PREFACE = 2
    LATE_FAREWELL = 3
    LATE_IDLE = 4

# What a peer may do too often: so much at once, and so much a second.
cdef enum:
    MOST_RESETS = 200
    RESETS_RATE = 20
    MOST_CONTROL = 1000
    CONTROL_RATE = 100

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
cdef const unsigned char *_preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

cdef double _FAREWELLS = 0.0005  # … of their turns, for each stream that is told of the end in one
cdef double _LAST_CALL = 1.0     # seconds that streams which are on their way have after the first GOAWAY
cdef bytes _GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"     # RFC 6455 section 1.3
cdef double _FULL = 0.01          # seconds for which a server that refused a stream is asked on other connections
cdef bytes _FAREWELL = b"farewell"

cdef inline unsigned int _number(const unsigned char *at) noexcept:
    return (<unsigned int>at[0] << 24) | (<unsigned int>at[1] << 16) | (<unsigned int>at[2] << 8) | at[3]

cdef inline void _write_number(unsigned char *at, unsigned int number) noexcept:
    at[0] = number >> 24
    at[1] = (number >> 16) & 255
    at[2] = (number >> 8) & 255
    at[3] = number & 255


cdef class Multiplex(Bringer):
    """One HTTP/2 connection over `channel`, which stays its owner's.

    on_stream(stream): serves a request; runs in a greenlet of its own, which ends with the stream (servers).
    Times in seconds, 0: no bound. `window`: bytes of a stream that are kept for whoever does not take them.
    """

    def __init__(self, Channel channel, limits, on_stream=None, *, int max_streams=128, long window=FIRST_WINDOW,
                 double header_timeout=0, double write_timeout=0, double idle_timeout=0, bint secure=False):
        self.channel = channel
        self.is_client = on_stream is None
        self.on_stream = on_stream
        self.limits = limits
        self.scheme = b"https" if secure else b"http"
        self.hub = channel.poller.hub
        self.run_callback = channel.poller.loop.run_callback
        # Made once; `_shut` breaks the circle.
        self.flush_soon = self._flush_soon
        self.beginnings = beginnings(self.hub)
        self.starting = []
        self.decoder = Decoder()
        self.encoder = Encoder()
        self.builder = HeadBuilder(limits)
        self.streams = {}
        self.blocked = deque()
        self.refused = ""
        self.max_streams = max_streams
        self.window = window
        # Until the peer says how many it takes (RFC 9113 section 6.5.2 knows no bound, and recommends 100 at least).
        self.peer_streams = 100
        self.send_window = self.peer_window = FIRST_WINDOW
        self.last_frame = -1
        self.next_stream = 1
        self.has_preface = self.is_client
        self.header_timeout = header_timeout
        self.write_timeout = write_timeout
        self.idle_timeout = idle_timeout
        self.heard = self.idle_since = now()
        self.resets.left = MOST_RESETS
        self.control.left = MOST_CONTROL
        self.resets.at = self.control.at = self.heard
        self._greet()

    def __dealloc__(self):
        if self.out != NULL:
            give_back(self.out, self.out_size)
        release(&self.block)
        release(&self.scratch)

    def _greet(self):
        cdef unsigned char payload[36]
        cdef int size = 0
        if self.is_client:
            memcpy(self._room(24), _preface, 24)
            self.out_stop += 24
            size = _setting(payload, size, 2, 0)                                # no push
        else:
            size = _setting(payload, size, 3, self.max_streams)
            size = _setting(payload, size, 8, 1)                                # extended CONNECT (RFC 8441)
        if self.window != FIRST_WINDOW:
            size = _setting(payload, size, 4, self.window)
        size = _setting(payload, size, 6, self.limits.max_header_size)
        self._put_frame(SETTINGS, 0, 0, payload, size)
        self._put_number(WINDOW_UPDATE, 0, WINDOW - FIRST_WINDOW)

    # -- for whoever owns the connection

    def run(self):
        """Read and serve until the connection is over; all its streams are over then too. Closes nothing."""
        try:
            self._loop()
        except Malformed as malformed:
            if not self.refused:
                self._say_goaway(COMPRESSION_ERROR, malformed.rule)
        finally:
            self._shut()
            # Whoever serves a stream learns that nobody is there and gives back what it holds.
            while self.streams and not self.is_client:
                self.on_idle = gevent.event.Event()
                self.on_idle.wait()
            if not self.is_client and self.channel.fd >= 0:
                self._flush()
            self.scheduled = True
            self.flush_soon = None

    def open(self):
        """A new stream for a request (clients); None when the connection takes no more now."""
        if self.room <= 0:
            return None
        cdef Stream stream = Stream.__new__(Stream, self.channel.fd)
        stream.mux = self
        stream.send_window = self.peer_window
        stream.receive_window = self.window
        stream.is_open = True
        # It gets its number with its head: numbers must rise on the wire.
        self.streams[stream] = stream
        return stream

    @property
    def is_ready(self):
        """Whether the peer has said who it is: its first SETTINGS are there."""
        return self.has_settings and not self.is_over

    @property
    def heard_at(self):
        """The monotonic moment of the last frame, or of the end of the last stream."""
        return self.heard

    def allow_idle(self, double timeout):
        """Rest at most so many seconds from now on."""
        self.idle_timeout = timeout
        self._poke()

    @property
    def room(self):
        """How many more requests the connection takes now (clients)."""
        if self.is_leaving or self.is_over or self.next_stream >= 0x7ffffff0 or self.channel.fd < 0:
            return 0
        if self.full_until:
            if now() < self.full_until:
                return 0
            self.full_until = 0
        return self.peer_streams - self.slack - len(self.streams)

    def leave(self):
        """Take no more requests than are on their way; the connection ends when all are answered."""
        if self.is_leaving or self.is_over:
            return
        self.is_leaving = True
        if not self.is_client:
            # What the peer sent before it hears of this is still served (RFC 9113 section 6.8): its answer to a
            # PING tells that it has heard.
            self._goodbye(0x7fffffff, NO_ERROR)
            self._put_frame(PING, 0, 0, PyBytes_AS_STRING(_FAREWELL), 8)
            self.farewell_at = now()
            self._schedule()
        self._poke()

    def kill(self):
        """End now: those who serve streams are cut off."""
        cdef Stream stream
        for stream in list(self.streams.values()):
            self.run_callback(self._cut_off, stream)

    def _cut_off(self, Stream stream):
        # Whoever served it may be done by now, and may even serve another.
        if stream.worker is not None:
            (<object>stream.worker).throw(GreenletExit)
        else:
            stream.close()

    def _last_call(self):
        if not self.is_last_call:
            self.is_last_call = True
            self._goodbye(self.last_stream, NO_ERROR)

    def _goodbye(self, unsigned int last, unsigned int code, bytes why=b""):
        cdef bytes payload = last.to_bytes(4, "big") + code.to_bytes(4, "big") + why
        self._put_frame(GOAWAY, 0, 0, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))

    cdef int _refuse(self, str rule) except -1:
        """The connection ends because of this rule."""
        if not self.refused:
            self.refused = rule
        return 0

    def _say_goaway(self, unsigned int code, str rule):
        self._refuse(rule)
        self.is_leaving = True
        self._goodbye(self.last_stream, code, rule.encode())
        if self.channel.fd >= 0:
            self._flush()

    cdef int _fail(self, unsigned int code, str rule) except -1:
        """The peer broke a rule that ends the connection."""
        self._say_goaway(code, rule)
        raise Malformed(rule)

    cdef int _charge(self, Bucket *bucket, double most, double rate, str rule, double cost=1) except -1:
        """The peer did something that costs us and not it: often enough, that is an attack."""
        cdef double t
        if self.is_client:
            # A server that wants to waste our time can send bodies. Only what has to be answered is bounded, so that
            # whoever asked pays for a broken answer, and not the other streams.
            if rule != "ping_flood" and rule != "settings_flood":
                return 0
            most *= 10
            rate *= 10
        t = now()
        bucket.left = min(most, bucket.left + (t - bucket.at) * rate) - cost
        bucket.at = t
        if bucket.left < 0:
            self._fail(ENHANCE_YOUR_CALM, rule)
        return 0

    def _shut(self):
        """Nothing comes or leaves any more: every stream is told."""
        cdef Stream stream
        cdef double t, left = 1
        self.is_over = True
        for stream in self.starting:
            # Nobody is there who would get an answer.
            stream.close()
        self.starting.clear()
        for stream in list(self.streams.values()):
            if not stream.is_open:
                continue
            if self.is_client and stream.in_ended:
                # The whole answer is here, and whoever asked for it may not have had his turn yet.
                stream._ready(READ | WRITE)
            else:
                stream._broken()
            if self.is_client:
                self._forget(stream)
                continue
            left -= 1
            if left < 1:
                # Each has much to give back, and no other client shall wait for all of them.
                t = now()
                take_turns()
                left = 1 + (now() - t) / _FAREWELLS

    # -- the reading greenlet

    cdef int _loop(self) except -1:
        cdef Channel channel = self.channel
        cdef Py_ssize_t count
        cdef double left, slice_end = now() + SLICE
        cdef bint is_all = self._process(slice_end)
        while not self.is_over:
            if not is_all or self.heard > slice_end:
                take_turns()
                slice_end = now() + SLICE
                # Who sends and sends would never be late else.
                if self._patience() < 0 and self._is_late():
                    return 0
            self._flush()
            if self.is_leaving and not self.streams and (self.is_last_call or self.is_client):
                if self.is_client and not self.is_last_call:
                    self._last_call()
                    self._flush()
                if self.out_start == self.out_stop:
                    return 0
            if self.is_over or channel.fd < 0:
                return 0
            if not is_all:
                is_all = self._process(slice_end)
                continue
            if channel.ready & READ:
                self._make_room()
                count = channel._recv(channel.buffer + channel.stop, channel.size - channel.stop)
                if count > 0:
                    channel.stop += count
                    is_all = self._process(slice_end)
                    continue
                if count != -1:
                    return 0
            if channel.start == channel.stop:
                channel._release()
            elif channel.size > SMALL and channel.stop - channel.start <= SMALL // 2:
                channel._grow(SMALL)
            if not self.streams and not self.block_stream:
                self._slim()
            left = self._patience()
            if left < 0 or not wait(channel, READ | (WRITE if self.out_start < self.out_stop else 0), None, 0, left):
                if self._is_late():
                    return 0
            slice_end = now() + SLICE
        return 0

    cdef int _slim(self) except -1:
        """Nobody knows how long a connection without a stream will rest."""
        slim(&self.block)
        slim(&self.scratch)
        self.builder.slim()
        return 0

    cdef object _make_room(self):
        cdef Channel channel = self.channel
        if channel.buffer == NULL:
            channel._grow(SMALL)
        elif channel.start == channel.stop:
            channel.start = channel.stop = 0
            if channel.size < LARGE and self.data_left > SMALL // 2:
                channel._release()
                channel._grow(LARGE)
        elif channel.size - channel.start < FRAME + 9:
            channel._grow(channel.size if channel.start else channel.size * 2)

    cdef double _deadline(self, int what) noexcept:
        """The moment from which on this is late; 0: never."""
        if what == LATE_WRITE:
            return self.stuck_since + self.write_timeout if self.stuck_since and self.write_timeout else 0
        if what == LATE_BLOCK:
            return self.block_since + self.header_timeout if self.block_stream and self.header_timeout else 0
        if what == LATE_PREFACE:
            return self.heard + self.header_timeout if not self.has_settings and self.header_timeout else 0
        if what == LATE_FAREWELL:
            return self.farewell_at + _LAST_CALL if self.farewell_at and not self.is_last_call else 0
        if self.streams or not self.has_settings or not self.idle_timeout or self.out_start < self.out_stop:
            return 0
        # A client without a request is idle, however many PINGs it sends.
        return (self.heard if self.is_client else self.idle_since) + self.idle_timeout

    cdef double _patience(self) except -2:
        """Seconds until something is late; 0: never, -1: now."""
        cdef double first = 0, moment
        cdef int what
        for what in range(LATE_WRITE, LATE_IDLE + 1):
            moment = self._deadline(what)
            if moment and (not first or moment < first):
                first = moment
        if not first:
            return 0
        first -= now()
        return first if first > 0.001 else -1

    cdef bint _is_late(self) except -1:
        """Act on what is late; True when that ends the connection."""
        cdef double t = now() + 0.002, moment
        cdef int what
        for what in range(LATE_WRITE, LATE_IDLE + 1):
            moment = self._deadline(what)
            if not moment or moment > t:
                continue
            if what == LATE_FAREWELL:
                self._last_call()
                return False
            if what == LATE_BLOCK:
                self._fail(ENHANCE_YOUR_CALM, "header_timeout")
            if what == LATE_IDLE:
                self._last_call()
                self._flush()
            if what == LATE_WRITE:
                self._refuse("write_timeout")
            if what == LATE_PREFACE:
                self._say_goaway(PROTOCOL_ERROR, "preface_timeout")
            return True
        return False

    cdef int _poke(self) except -1:
        """Let the reading greenlet look around."""
        self.run_callback(self.channel._wake)
        return 0

    cdef bint _process(self, double slice_end) except -1:
        """Take what has been read, frame by frame; False when the slice of time is over before."""
        cdef Channel channel = self.channel
        cdef const unsigned char *at
        cdef Py_ssize_t have, size
        cdef int kind
        if not self.has_preface:
            have = min(channel.stop - channel.start, 24)
            if memcmp(channel.buffer + channel.start, _preface, have) != 0:
                self._fail(PROTOCOL_ERROR, "bad_preface")
            if have < 24:
                return True
            channel.start += 24
            self.has_preface = True
        while not self.is_over:
            have = channel.stop - channel.start
            at = channel.buffer + channel.start
            if self.data_left or self.pad_left:
                if have == 0:
                    return True
                channel.start += self._data(at, have)
                continue
            if have < 9:
                return True
            if self.heard > slice_end:
                return False
            size = (<Py_ssize_t>at[0] << 16) | (<Py_ssize_t>at[1] << 8) | at[2]
            kind = at[3]
            if size > FRAME:
                self._fail(FRAME_SIZE_ERROR, "frame_too_large")
            if not self.has_settings and kind != SETTINGS:
                self._fail(PROTOCOL_ERROR, "missing_settings")
            if self.block_stream and (kind != CONTINUATION or (_number(at + 5) & 0x7fffffff) != self.block_stream):
                self._fail(PROTOCOL_ERROR, "missing_continuation")
            if kind == DATA:
                if at[4] & PADDED and size and have < 10:
                    return True
                channel.start += 9
                self._data_header(at[4], _number(at + 5) & 0x7fffffff, size, at + 9)
                continue
            if have < 9 + size:
                return True
            channel.start += 9 + size
            self._frame(kind, at[4], _number(at + 5) & 0x7fffffff, at + 9, size)
        return True

    cdef int _frame(self, int kind, int flags, unsigned int id, const unsigned char *data, Py_ssize_t size) except -1:
        self.heard = now()
        if kind == HEADERS:
            return self._headers(flags, id, data, size)
        if kind == CONTINUATION:
            if not self.block_stream:
                self._fail(PROTOCOL_ERROR, "unexpected_continuation")
            return self._fragment(data, size, flags)
        if kind == WINDOW_UPDATE:
            if size != 4:
                self._fail(FRAME_SIZE_ERROR, "bad_frame_size")
            return self._window_update(id, _number(data) & 0x7fffffff)
        self._charge(&self.control, MOST_CONTROL, CONTROL_RATE, _flood(kind))
        if kind == RST_STREAM:
            if size != 4:
                self._fail(FRAME_SIZE_ERROR, "bad_frame_size")
            return self._reset(id, _number(data))
        if kind == SETTINGS:
            if id:
                self._fail(PROTOCOL_ERROR, "bad_stream_id")
            return self._settings(flags, data, size)
        if kind == PING:
            if id or size != 8:
                self._fail(PROTOCOL_ERROR if id else FRAME_SIZE_ERROR, "bad_stream_id" if id else "bad_frame_size")
            if not flags & ACK:
                return self._put_frame(PING, ACK, 0, data, 8)
            if self.is_leaving and not self.is_client and memcmp(data, PyBytes_AS_STRING(_FAREWELL), 8) == 0:
                self._last_call()
            return 0
        if kind == GOAWAY:
            if id or size < 8:
                self._fail(PROTOCOL_ERROR if id else FRAME_SIZE_ERROR, "bad_stream_id" if id else "bad_frame_size")
            return self._goaway(_number(data) & 0x7fffffff, _number(data + 4))
        if kind == PRIORITY:
            if not id or size != 5:
                self._fail(PROTOCOL_ERROR if not id else FRAME_SIZE_ERROR,
                           "bad_stream_id" if not id else "bad_frame_size")
            return 0
        if kind == PUSH_PROMISE:
            self._fail(PROTOCOL_ERROR, "unasked_push")
        # Whatever else there is may be ignored (RFC 9113 section 5.5), priorities of RFC 9218 among it.
        return 0

    # -- bodies

    cdef int _data_header(self, int flags, unsigned int id, Py_ssize_t size, const unsigned char *data) except -1:
        cdef Stream stream
        cdef Py_ssize_t pad = 0, whole = size
        self.heard = now()
        if not self._is_known(id):
            self._fail(PROTOCOL_ERROR, "bad_stream_id")
        # Streams bound what is kept; the connection's window only has to be open.
        self.unacknowledged += size
        if self.unacknowledged >= WINDOW // 2:
            self._put_number(WINDOW_UPDATE, 0, self.unacknowledged)
            self.unacknowledged = 0
        if size == 0 and not flags & END_STREAM:
            self._charge(&self.control, MOST_CONTROL, CONTROL_RATE, "empty_frames")
        if flags & PADDED:
            if size == 0:
                self._fail(FRAME_SIZE_ERROR, "bad_frame_size")
            pad = data[0]
            if pad >= size:
                self._fail(PROTOCOL_ERROR, "bad_padding")
            self.channel.start += 1
            size -= 1 + pad
            if size == 0 and not flags & END_STREAM:
                self._charge(&self.control, MOST_CONTROL, CONTROL_RATE, "empty_frames")
        stream = self.streams.get(id)
        if stream is not None and not stream.was_reset:
            stream.receive_window -= whole
            if stream.receive_window < 0:
                stream._break(FLOW_CONTROL_ERROR)
                self._charge(&self.resets, MOST_RESETS, RESETS_RATE, "window_overrun")
                stream = None
            elif stream.in_ended or not stream.has_head:
                stream._break(STREAM_CLOSED)
                self._charge(&self.resets, MOST_RESETS, RESETS_RATE, "data_after_end")
                stream = None
            elif flags & PADDED:
                stream._credit(1 + pad)
        else:
            stream = None
            if 0 < whole <= self.late_bytes:
                # It was on its way as we ended the stream.
                self.late_bytes -= whole
            else:
                self._charge(&self.control, MOST_CONTROL, CONTROL_RATE, "data_after_end")
                self._put_number(RST_STREAM, id, STREAM_CLOSED)
        self.data_stream = stream
        self.data_flags = flags
        self.data_left = size
        self.pad_left = pad
        if size == 0 and pad == 0:
            self._data_end()
        return 0

    cdef Py_ssize_t _data(self, const unsigned char *data, Py_ssize_t size) except -1:
        """Bytes of the DATA frame that is being read; how many were taken."""
        cdef Py_ssize_t count = min(size, <Py_ssize_t>self.data_left), pad
        cdef Stream stream = self.data_stream
        if count:
            self.data_left -= count
            if stream is not None and not stream.was_reset:
                if stream.expected >= 0:
                    stream.expected -= count
                    if stream.expected < 0:
                        self._mismatch(stream)
                if not stream.was_reset:
                    stream._push(data, count)
        pad = min(size - count, <Py_ssize_t>self.pad_left) if not self.data_left else 0
        self.pad_left -= pad
        if not self.data_left and not self.pad_left:
            self._data_end()
        return count + pad

    cdef object _data_end(self):
        cdef Stream stream = self.data_stream
        self.data_stream = None
        if self.data_flags & END_STREAM and stream is not None and not stream.was_reset:
            if stream.expected > 0:
                self._mismatch(stream)
            else:
                stream._end_input()

    cdef object _mismatch(self, Stream stream):
        """Content-Length and the body disagree (RFC 9113 section 8.1.1)."""
        stream._break(PROTOCOL_ERROR)
        self._charge(&self.resets, MOST_RESETS, RESETS_RATE, "content_length_mismatch")

    # -- heads

    cdef int _headers(self, int flags, unsigned int id, const unsigned char *data, Py_ssize_t size) except -1:
        cdef Py_ssize_t pad = 0
        if flags & PADDED:
            if size < 1:
                self._fail(FRAME_SIZE_ERROR, "bad_frame_size")
            pad = data[0]
            data += 1
            size -= 1
        if flags & WITH_PRIORITY:
            data += 5
            size -= 5
        if size < 0:
            self._fail(FRAME_SIZE_ERROR, "bad_frame_size")
        if pad > size:
            self._fail(PROTOCOL_ERROR, "bad_padding")
        if not id or (self.is_client and not self._is_known(id)) or (not self.is_client and not id & 1):
            self._fail(PROTOCOL_ERROR, "bad_stream_id")
        self.block.size = 0
        self.block_stream = id
        self.block_flags = flags
        self.block_parts = 0
        self.block_since = self.heard
        return self._fragment(data, size - pad, flags)

    cdef int _fragment(self, const unsigned char *data, Py_ssize_t size, int flags) except -1:
        self.block_parts += 1
        if self.block_parts > PARTS or self.block.size + size > self.limits.max_header_size + FRAME:
            self._fail(ENHANCE_YOUR_CALM, "continuation_flood")
        if flags & END_HEADERS and not self.block.size:
            # Mostly all is in one frame: read where it is.
            return self._decode(data, size)
        reserve(&self.block, size)
        memcpy(self.block.data + self.block.size, data, size)
        self.block.size += size
        if flags & END_HEADERS:
            return self._decode(self.block.data, self.block.size)
        return 0

    cdef int _decode(self, const unsigned char *data, Py_ssize_t size) except -1:
        cdef unsigned int id = self.block_stream
        cdef bint ends = bool(self.block_flags & END_STREAM)
        cdef HeadBuilder builder = self.builder
        cdef Stream stream = self.streams.get(id)
        cdef bint is_new = stream is None and not self.is_client and id > self.highest
        self.block_stream = 0
        if stream is not None and self.is_client and not stream.has_head:
            builder.is_head_request = stream.is_head_request
            builder.begin(OF_RESPONSE)
        else:
            builder.begin(OF_REQUEST if is_new else OF_TRAILERS)
        # Also what nobody wants: the tables of both ends must stay the same.
        self.decoder.decode(data, size, builder)
        if is_new:
            return self._request(id, ends)
        if stream is None or stream.was_reset:
            self._charge(&self.control, MOST_CONTROL, CONTROL_RATE, "headers_after_end")
            if not self.is_client:
                if not self.late_blocks or not ends:
                    self._fail(STREAM_CLOSED, "headers_after_end")
                self.late_blocks -= 1
            return 0
        if stream.in_ended:
            stream._break(STREAM_CLOSED)
            return self._charge(&self.resets, MOST_RESETS, RESETS_RATE, "headers_after_end")
        if self.is_client and not stream.has_head:
            return self._response(stream, ends)
        return self._trailers(stream, ends)

    cdef int _request(self, unsigned int id, bint ends) except -1:
        cdef HeadBuilder builder = self.builder
        cdef Stream stream
        cdef bytes head
        self.highest = id
        if self.is_last_call or len(self.streams) >= self.max_streams:
            self._await_rest(self.window, ends)
            self._put_number(RST_STREAM, id, REFUSED_STREAM)
            if self.is_last_call:
                return self._charge(&self.control, MOST_CONTROL, CONTROL_RATE, "requests_after_goaway")
            self.last_stream = id
            return self._charge(&self.control, MOST_CONTROL, CONTROL_RATE, "too_many_streams")
        self.last_stream = id
        head = builder.request(ends)
        stream = Stream.__new__(Stream, self.channel.fd)
        stream.mux = self
        stream.id = id
        stream.is_open = True
        stream.send_window = self.peer_window
        stream.receive_window = self.window
        stream.has_head = True
        if head is None:
            stream.malformed = builder.broken
            stream.refusal = builder.refusal
            self._charge(&self.resets, MOST_RESETS, RESETS_RATE, "malformed_requests")
        else:
            stream.is_connect = builder.is_connect
            stream.expected = builder.length if not ends and not builder.is_connect else -1
            stream._push(<const unsigned char *>PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head))
            stream.head_left = PyBytes_GET_SIZE(head)
        if ends:
            stream._end_input()
        self.streams[id] = stream
        if not self.starting:
            self.beginnings.add(self)
        self.starting.append(stream)
        return 0

    cdef int begin_some(self, double slice_end) except -1:
        cdef Stream stream
        cdef int left = SHARE
        cdef bint is_late = False
        while self.starting and left and not is_late:
            stream = self.starting.pop(0)
            if not stream.is_open or stream.was_reset:
                stream.close()
                continue
            try:
                _work(self.hub, stream)
            except Exception as error:
                self.hub.handle_error(self, type(error), error, error.__traceback__)
                stream.close()
            left -= 1
            is_late = now() > slice_end
        return (MORE if self.starting else 0) | (LATE if is_late else 0)

    cdef object _serve(self, Stream stream):
        try:
            self.on_stream(stream)
        except GreenletExit:
            pass
        except BaseException as error:
            self.hub.handle_error(self, type(error), error, error.__traceback__)
        finally:
            stream.worker = None
            stream.close()

    cdef int _response(self, Stream stream, bint ends) except -1:
        cdef HeadBuilder builder = self.builder
        cdef bint opens = stream.is_connect and 200 <= builder.code < 300 and not builder.broken
        cdef bytes head = builder.switched(stream.accept) if opens else builder.response(ends)
        if head is None:
            stream.malformed = builder.broken
            stream.refusal = 502
            stream._break(PROTOCOL_ERROR)
            return 0
        stream._push(<const unsigned char *>PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head))
        stream.head_left += PyBytes_GET_SIZE(head)
        if builder.code >= 200:
            stream.has_head = True
            if builder.is_head_request or builder.code == 204 or builder.code == 304:
                stream.expected = 0
            else:
                stream.expected = -1 if ends or opens else builder.length
        elif stream.queue_stop - stream.queue_start > 4 * self.limits.max_header_size:
            stream._break(ENHANCE_YOUR_CALM)
        if ends:
            stream._end_input()
        return 0

    cdef int _trailers(self, Stream stream, bint ends) except -1:
        cdef bytes lines = self.builder.trailers()
        if lines is None or not ends or stream.expected > 0:
            stream._break(PROTOCOL_ERROR)
            return self._charge(&self.resets, MOST_RESETS, RESETS_RATE, "malformed_trailers")
        stream.fields = lines
        return stream._end_input()

    cdef int _await_rest(self, long long window, bint has_ended) except -1:
        """What the peer sends on a stream before it learns that we ended it is no fault, and is bounded."""
        if not has_ended:
            self.late_bytes += max(window, 0)
            self.late_blocks += 1
        return 0

    cdef bint _is_known(self, unsigned int id) noexcept:
        """Whether a stream of this number was ever there."""
        if self.is_client:
            return id & 1 and id < self.next_stream
        return id & 1 and id <= self.highest

    # -- the connection's own

    cdef int _settings(self, int flags, const unsigned char *data, Py_ssize_t size) except -1:
        cdef Py_ssize_t at
        cdef unsigned int name, value
        cdef long window = self.peer_window
        if flags & ACK:
            if size:
                self._fail(FRAME_SIZE_ERROR, "bad_frame_size")
            if not self.has_settings:
                self._fail(PROTOCOL_ERROR, "missing_settings")
            return 0
        if size % 6:
            self._fail(FRAME_SIZE_ERROR, "bad_frame_size")
        if size > 6 * 64:
            self._fail(ENHANCE_YOUR_CALM, "settings_flood")
        self.has_settings = True
        for at in range(0, size, 6):
            name = (<unsigned int>data[at] << 8) | data[at + 1]
            value = _number(data + at + 2)
            if name == 1:
                self.encoder.set_table_size(min(value, 4096))
            elif name == 2:
                if value > 1 or value and self.is_client:
                    self._fail(PROTOCOL_ERROR, "bad_setting")
            elif name == 3:
                self.peer_streams = min(value, 1000000)
                self.slack = 0
            elif name == 4:
                if value > 0x7fffffff:
                    self._fail(FLOW_CONTROL_ERROR, "bad_setting")
                window = value
            elif name == 5:
                if not FRAME <= value <= 16777215:
                    self._fail(PROTOCOL_ERROR, "bad_setting")
            elif name == 8:
                if value > 1:
                    self._fail(PROTOCOL_ERROR, "bad_setting")
                self.peer_connect = value == 1
        if window != self.peer_window:
            self._move_windows(window)
        self._put_frame(SETTINGS, ACK, 0, NULL, 0)
        if self.on_idle is not None and self.is_client:
            self.on_idle()
        return 0

    cdef int _move_windows(self, long window) except -1:
        """The peer's window for streams is another one, for those there are too (RFC 9113 section 6.9.2)."""
        cdef Stream stream
        # One small frame makes us visit every stream.
        self._charge(&self.control, MOST_CONTROL, CONTROL_RATE, "settings_flood", 1 + len(self.streams) // 16)
        for stream in self.streams.values():
            stream.send_window += window - self.peer_window
            if stream.send_window > 0x7fffffff:
                self._fail(FLOW_CONTROL_ERROR, "window_overflow")
            if stream.send_window > 0:
                stream._ready(WRITE)
        self.peer_window = window
        return 0

    cdef int _window_update(self, unsigned int id, unsigned int increment) except -1:
        cdef Stream stream
        if id == 0:
            if increment == 0:
                self._fail(PROTOCOL_ERROR, "empty_window_update")
            self.send_window += increment
            if self.send_window > 0x7fffffff:
                self._fail(FLOW_CONTROL_ERROR, "window_overflow")
            # One that opens little costs more than it is worth.
            if increment < 256:
                self._charge(&self.control, MOST_CONTROL, CONTROL_RATE, "window_flood")
            return self._unblock()
        if not self._is_known(id):
            self._fail(PROTOCOL_ERROR, "bad_stream_id")
        stream = self.streams.get(id)
        if stream is None or stream.was_reset:
            return self._charge(&self.control, MOST_CONTROL, CONTROL_RATE, "window_flood")
        if increment < 256:
            self._charge(&self.control, MOST_CONTROL, CONTROL_RATE, "window_flood")
        if increment == 0:
            stream._break(PROTOCOL_ERROR)
            return self._charge(&self.resets, MOST_RESETS, RESETS_RATE, "empty_window_update")
        stream.send_window += increment
        if stream.send_window > 0x7fffffff:
            stream._break(FLOW_CONTROL_ERROR)
            return self._charge(&self.resets, MOST_RESETS, RESETS_RATE, "window_overflow")
        if stream.send_window > 0:
            stream._ready(WRITE)
        return 0

    cdef int _reset(self, unsigned int id, unsigned int code) except -1:
        cdef Stream stream
        if not self._is_known(id):
            self._fail(PROTOCOL_ERROR, "bad_stream_id")
        stream = self.streams.get(id)
        if stream is None:
            return 0
        if not self.is_client:
            self._charge(&self.resets, MOST_RESETS, RESETS_RATE, "rapid_reset")
        elif code == REFUSED_STREAM and not stream.has_head:
            stream.is_refused = True
            # A server may forget a stream later than it ends it, and then counts more than there are.
            if len(self.streams) > 1:
                self.full_until = now() + _FULL
                if self.slack < self.peer_streams // 2:
                    self.slack += 1
        elif code == NO_ERROR and stream.in_ended:
            # All is answered; only the rest of the request is not wanted.
            stream.out_ended = True
            stream._ready(WRITE)
            return 0
        stream._broken()
        return 0

    cdef int _goaway(self, unsigned int last, unsigned int code) except -1:
        cdef Stream stream
        self.is_leaving = True
        if self.is_client:
            for stream in list(self.streams.values()):
                if stream.id > last or not stream.id:
                    stream.is_refused = True
                    stream._broken()
            if self.on_idle is not None:
                self.on_idle()
        else:
            self.is_last_call = True
        return 0

    # -- output

    cdef unsigned char *_room(self, Py_ssize_t size) except NULL:
        """Room for so many bytes behind what waits to be sent."""
        cdef unsigned char *bigger
        cdef Py_ssize_t waiting = self.out_stop - self.out_start, room
        if self.out == NULL:
            room = SMALL if size <= SMALL else LARGE
            self.out = borrow(room)
            self.out_size = room
            self.out_start = self.out_stop = 0
        if self.out_size - self.out_stop >= size:
            return self.out + self.out_stop
        if self.last_frame >= 0:
            self.last_frame -= self.out_start
        if self.out_size - waiting >= size:
            memmove(self.out, self.out + self.out_start, waiting)
        else:
            room = LARGE
            while room - waiting < size:
                room *= 2
            bigger = borrow(room)
            memcpy(bigger, self.out + self.out_start, waiting)
            give_back(self.out, self.out_size)
            self.out = bigger
            self.out_size = room
        self.out_start = 0
        self.out_stop = waiting
        return self.out + self.out_stop

    cdef int _put_frame(self, int kind, int flags, unsigned int id, const void *data, Py_ssize_t size) except -1:
        cdef unsigned char *at
        if self.is_over:
            return 0
        if self.out_stop - self.out_start > STUCK:
            self._refuse("output_stalled")
            self.is_over = True
            return self._poke()
        at = self._room(9 + size)
        at[0] = size >> 16
        at[1] = (size >> 8) & 255
        at[2] = size & 255
        at[3] = kind
        at[4] = flags
        _write_number(at + 5, id)
        if size:
            memcpy(at + 9, data, size)
        if kind == DATA or kind == HEADERS:
            self.last_frame = self.out_stop
            self.last_owner = id
        self.out_stop += 9 + size
        return self._schedule()

    cdef int _put_number(self, int kind, unsigned int id, unsigned int number) except -1:
        cdef unsigned char payload[4]
        _write_number(payload, number)
        return self._put_frame(kind, 0, id, payload, 4)

    cdef int _put_block(self, unsigned int id, bint ends) except -1:
        """What `scratch` holds, as HEADERS and CONTINUATION."""
        cdef Py_ssize_t at = 0, size
        cdef int kind = HEADERS, flags
        while True:
            size = min(self.scratch.size - at, FRAME)
            flags = END_HEADERS if at + size == self.scratch.size else 0
            if kind == HEADERS and ends:
                flags |= END_STREAM
            self._put_frame(kind, flags, id, self.scratch.data + at, size)
            at += size
            if at == self.scratch.size:
                if kind == CONTINUATION:
                    self.last_frame = -1
                return 0
            kind = CONTINUATION

    cdef int _schedule(self) except -1:
        if not self.scheduled:
            self.scheduled = True
            self.run_callback(self.flush_soon)
        return 0

    def _flush_soon(self):
        self.scheduled = False
        if self.channel.fd >= 0:
            self._flush()
            if self.is_over:
                self._poke()

    cdef int _flush(self) except -1:
        """Send what waits, as much as the socket takes."""
        cdef Channel channel = self.channel
        cdef iovec piece
        cdef Py_ssize_t count
        # What the channel has seen may not change any more: TLS may hold it encrypted.
        self.last_frame = -1
        while self.out_start < self.out_stop:
            piece.iov_base = self.out + self.out_start
            piece.iov_len = self.out_stop - self.out_start
            count = channel._sendv(&piece, 1)
            if count == -1:
                if not self.stuck_since:
                    self.stuck_since = now()
                    # The reading greenlet may be waiting without a bound: it must learn of this one.
                    if channel.waiter is not None and self.write_timeout and not channel.deadline:
                        channel._arm(self.write_timeout)
                if channel.waiter is not None:
                    channel.interest |= WRITE
                return 0
            if count == -2:
                self.is_over = True
                self.out_start = self.out_stop
                break
            self.out_start += count
            self.stuck_since = 0
            if self.blocked and self.out_stop - self.out_start < LOW:
                self._unblock()
        if self.out != NULL and self.out_start == self.out_stop:
            give_back(self.out, self.out_size)
            self.out = NULL
            self.out_size = self.out_start = self.out_stop = 0
        if self.blocked:
            self._unblock()
        return 0

    cdef int _unblock(self) except -1:
        """Streams that waited for the connection may go on."""
        if self.blocked and not self.unblocking and self._has_room():
            self.unblocking = True
            self.run_callback(self._turn)
        return 0

    cdef inline bint _has_room(self) noexcept:
        return not self.is_over and self.send_window > 0 and self.out_stop - self.out_start <= LOW

    def _turn(self):
        """One after the other, as long as there is room: who got some waits behind the others."""
        cdef Stream stream
        self.unblocking = False
        while self.blocked and self._has_room():
            stream = self.blocked.popleft()
            stream.is_blocked = False
            if stream.send_window > 0 or not stream.sent_head:
                stream.ready |= WRITE
                if stream.interest & WRITE:
                    Channel._wake(stream)

    cdef int _forget(self, Stream stream) except -1:
        """A stream is over on our side."""
        if not stream.is_open:
            return 0
        stream.is_open = False
        if stream.is_blocked:
            stream.is_blocked = False
            self.blocked.remove(stream)
        if stream.is_wide:
            self.wide -= 1
        self.streams.pop(stream.id if stream.id else stream, None)
        if stream.in_ended and stream.out_ended and not stream.was_reset and stream.malformed is None:
            self.handled += 1
            if self.slack and self.handled % CALM == 0:
                self.slack -= 1
            self.resets.left = min(MOST_RESETS, self.resets.left + 1)
            self.control.left = min(MOST_CONTROL, self.control.left + 4)
        if self.is_over:
            if self.on_idle is not None and not self.streams and not self.is_client:
                self.on_idle.set()
            return 0
        if not self.streams:
            self.heard = self.idle_since = now()
            if self.is_leaving:
                self._poke()
            elif self.idle_timeout and self.channel.waiter is not None and not self.channel.deadline:
                self.channel._arm(self.idle_timeout)
        if self.is_client and self.on_idle is not None:
            self.on_idle()
        return 0

    def watch(self, function):
        """`function()` is called when there may be more room, or none any more (clients)."""
        self.on_idle = function

    def __repr__(self):
        return f"<Multiplex streams={len(self.streams)} refused={self.refused!r} over={self.is_over}>"


# A greenlet's first Python frame maps memory and its end gives that back, which costs more than a small request:
# those that are done rest, and serve again.
cdef list _resting = []

def _labour(Stream stream):
    """Serve this stream, then whatever is switched in."""
    cdef Multiplex mux
    me = PyGreenlet_GetCurrent()
    hub = stream.mux.hub
    while True:
        mux = stream.mux
        mux._serve(stream)
        stream = mux = None
        if len(_resting) >= RESTING:
            return
        _resting.append(me)
        try:
            stream = hub.switch()
        except GreenletExit:
            # Nobody knows it any more.
            return


cdef object _work(hub, Stream stream):
    while _resting:
        worker = _resting.pop()
        if worker.parent is hub:
            break
    else:
        worker = Greenlet(_labour, hub)
    stream.worker = worker
    worker.switch(stream)


cdef int _setting(unsigned char *payload, int size, int name, unsigned int value) noexcept:
    payload[size] = 0
    payload[size + 1] = name
    _write_number(payload + size + 2, value)
    return size + 6


cdef str _flood(int kind):
    if kind == PING:
        return "ping_flood"
    if kind == SETTINGS:
        return "settings_flood"
    if kind == RST_STREAM:
        return "rapid_reset"
    return "control_flood"


cdef class Stream(Channel):
    """One request and its response. Servers read a request head and write a response head; clients the other way."""

    def __cinit__(self, int fd, bint readable=False):
        self.framed = True
        self.ready = WRITE
        self.expected = -1

    def __dealloc__(self):
        if self.queue != NULL:
            PyMem_Free(self.queue)

    # -- what the connection tells

    cdef int _push(self, const unsigned char *data, Py_ssize_t size) except -1:
        """More bytes for whoever reads."""
        cdef Py_ssize_t have = self.queue_stop - self.queue_start, room
        cdef void *grown
        if have == 0:
            self.queue_start = self.queue_stop = 0
        if self.queue_size - self.queue_stop < size:
            if self.queue_start and self.queue_size - have >= size:
                memmove(self.queue, self.queue + self.queue_start, have)
            else:
                # To the double of a window would be as much again.
                room = max(have + size, 512 if not self.queue_size else
                           self.queue_size * 2 if self.queue_size < SMALL else self.queue_size + SMALL)
                grown = PyMem_Malloc(room)
                if grown == NULL:
                    raise MemoryError
                memcpy(grown, self.queue + self.queue_start, have)
                PyMem_Free(self.queue)
                self.queue = <unsigned char *>grown
                self.queue_size = room
            self.queue_start = 0
            self.queue_stop = have
        memcpy(self.queue + self.queue_stop, data, size)
        self.queue_stop += size
        return self._ready(READ)

    cdef int _end_input(self) except -1:
        self.in_ended = True
        return self._ready(READ)

    cdef int _break(self, unsigned int code) except -1:
        """End the stream with an error, which the peer is told."""
        if not self.was_reset:
            if self.id:
                self.mux._await_rest(self.receive_window, self.in_ended)
                self.mux._put_number(RST_STREAM, self.id, code)
            self._broken()
        return 0

    cdef int _broken(self) except -1:
        """Neither side goes on."""
        self.was_reset = True
        PyMem_Free(self.queue)
        self.queue = NULL
        self.queue_start = self.queue_stop = self.queue_size = 0
        return self._ready(READ | WRITE | HUP)

    cdef int _ready(self, int bits) except -1:
        self.ready |= bits
        if self.waiter is not None and not self.waking and self.ready & self.interest:
            self.waking = True
            self.mux.run_callback(self._wake)
        elif self.parked is not None and bits & HUP:
            # It rests in a queue, and leaves that when its client is gone.
            self.mux.run_callback(self._tell)
        return 0

    def _tell(self):
        # Meanwhile its turn may have come.
        if self.parked is not None:
            self.parked(self)

    def _wake(self):
        self.waking = False
        Channel._wake(self)

    # -- what a channel is

    cdef int _register(self) except -1:
        return 0

    cdef void _unregister(self) noexcept:
        pass

    cdef bint _has_news(self) noexcept:
        return self.stop > self.start or self.queue_stop > self.queue_start or self.in_ended or self.was_reset

    cdef bint _ended(self) noexcept:
        return self.in_ended and self.queue_start == self.queue_stop and not self.was_reset

    cdef bytes _trailers(self):
        return b"" if self.fields is None else self.fields

    cpdef int read_head(self, Head head, double first, double total, Channel watch=None) except -1:
        cdef int code
        if self.malformed is None:
            code = Channel.read_head(self, head, first, total, watch)
            if self.malformed is None:
                return code
        raise Malformed(self.malformed, self.refusal)

    cdef Py_ssize_t _recv(self, unsigned char *into, Py_ssize_t size) noexcept:
        cdef Py_ssize_t count = min(size, self.queue_stop - self.queue_start), body
        if count > 0:
            body = count
            if self.head_left:
                # Not what lies behind it: bytes that nobody asked for stay in the window.
                count = min(count, self.head_left)
                self.head_left -= count
                body = 0
            memcpy(into, self.queue + self.queue_start, count)
            self.queue_start += count
            self.received += body
            if self.queue_start == self.queue_stop:
                if self.queue_size > SMALL:
                    PyMem_Free(self.queue)
                    self.queue = NULL
                    self.queue_size = 0
                self.queue_start = self.queue_stop = 0
                if not self.in_ended:
                    self.ready &= ~READ
            if body and not self.in_ended:
                try:
                    self._credit(body)
                except Exception:
                    # The peer does not read, or there is no memory: it must not look like an end.
                    return -2
            return count
        if self.was_reset:
            return -2
        if self.in_ended:
            return 0
        self.ready &= ~READ
        return -1

    cdef int _credit(self, Py_ssize_t count) except -1:
        """Bytes were taken: the peer may send as many more."""
        cdef Multiplex mux = self.mux
        self.consumed += count
        if self.consumed * 2 < mux.window:
            return 0
        # Whoever takes bytes may have more on their way; a stream that nobody reads keeps the small window.
        if not self.is_wide and mux.wide < MOST_WIDE:
            self.is_wide = True
            mux.wide += 1
        if self.is_wide and self.receive_window + self.consumed < WIDE:
            self.consumed = WIDE - self.receive_window
        self.receive_window += self.consumed
        mux._put_number(WINDOW_UPDATE, self.id, self.consumed)
        self.consumed = 0
        return 0

    cdef Py_ssize_t _sendv(self, iovec *pieces, int count) noexcept:
        try:
            return self._take(pieces, count)
        except Malformed:
            # As in _recv.
            return -2
        except Exception as error:
            # Whoever sends cannot be told in another way, and a mistake of ours must not pass for one of the peer.
            self.mux.hub.handle_error(self, type(error), error, error.__traceback__)
            return -2

    cdef Py_ssize_t _take(self, iovec *pieces, int count) except -99:
        cdef Multiplex mux = self.mux
        cdef const unsigned char *data
        cdef Py_ssize_t left, used, taken = 0
        cdef int i
        if self.was_reset or self.out_ended or mux.is_over:
            return -2
        for i in range(count):
            data = <const unsigned char *>pieces[i].iov_base
            left = pieces[i].iov_len
            while left:
                if mux.out_stop - mux.out_start > HIGH:
                    used = 0
                elif not self.sent_head:
                    used = self._send_head(data, left)
                    if used < 0:
                        return -2
                else:
                    used = min(min(left, FRAME), min(self.send_window, mux.send_window))
                    if used > 0:
                        mux._put_frame(DATA, 0, self.id, data, used)
                        self.send_window -= used
                        mux.send_window -= used
                        if self.send_window > 0 and mux.send_window > 0:
                            # Who takes much has much to acknowledge. Not so who opens a window byte by byte.
                            mux.control.left += 3
                if used <= 0:
                    self.ready &= ~WRITE
                    if (self.send_window > 0 or not self.sent_head) and not self.is_blocked:
                        self.is_blocked = True
                        mux.blocked.append(self)
                    self.sent += taken
                    return taken if taken else -1
                data += used
                left -= used
                taken += used
        self.sent += taken
        return taken

    cdef Py_ssize_t _send_head(self, const unsigned char *data, Py_ssize_t size) except -99:
        """Turn the head that `data` begins with into HEADERS; its length, -1 when none is possible any more."""
        cdef Multiplex mux = self.mux
        cdef Sent sent
        cdef Py_ssize_t end = head_end(data, size)
        if end == 0:
            raise ValueError("what is sent first must be a whole head")
        mux.scratch.size = 0
        if not mux.is_client:
            encode_response(mux.encoder, &mux.scratch, data, end, self.is_connect, &sent)
            self.sent_head = not sent.is_interim
            mux._put_block(self.id, False)
            return end
        self.is_head_request = end > 5 and memcmp(data, b"HEAD ", 5) == 0
        encode_request(mux.encoder, &mux.scratch, data, end, mux.scheme, self.is_connect)
        mux.streams.pop(self, None)
        self.id = mux.next_stream
        mux.next_stream += 2
        mux.streams[self.id] = self
        self.sent_head = True
        mux._put_block(self.id, False)
        return end

    cdef int _finish(self, bytes trailers) except -1:
        """End the message that is being sent."""
        cdef Multiplex mux = self.mux
        if self.out_ended or self.was_reset or not self.sent_head or mux.is_over:
            return 0
        if self.malformed is not None and self.refusal == 400:
            # The answer tells why; the stream ends with the error that RFC 9113 section 8.1.1 wants.
            return self._break(PROTOCOL_ERROR)
        self.out_ended = True
        if trailers:
            mux.scratch.size = 0
            encode_trailers(mux.encoder, &mux.scratch, <const unsigned char *>PyBytes_AS_STRING(trailers),
                            PyBytes_GET_SIZE(trailers))
            mux._put_block(self.id, True)
        elif mux.last_frame >= 0 and mux.last_owner == self.id:
            mux.out[mux.last_frame + 4] |= END_STREAM
        else:
            mux._put_frame(DATA, END_STREAM, self.id, NULL, 0)
        return 0

    def finish(self, bytes trailers=b""):
        """End the message that is being sent; `trailers`: field lines."""
        self._finish(trailers)

    def open_websocket(self, bytes key):
        """The request that is about to be sent asks for a WebSocket; `key`: its Sec-WebSocket-Key."""
        self.is_connect = True
        self.accept = b64encode(sha1(key + _GUID).digest())

    @property
    def trailers(self):
        """The trailer fields of what was received, as lines."""
        return b"" if self.fields is None else self.fields

    def shutdown_write(self):
        self._finish(b"")

    def linger(self, double timeout, Py_ssize_t limit=67108864):
        """All is said; whoever still sends is told to stop, which takes no time."""
        self._finish(b"")
        self.close()

    def abort(self):
        """The peer must not take what it got for complete."""
        if self.fd >= 0 and self.is_open and not self.was_reset:
            self._break(CANCEL if self.mux.is_client else INTERNAL_ERROR)
        self.close()

    def close(self):
        """Over: what is not complete is reset."""
        cdef Multiplex mux = self.mux
        if self.fd < 0:
            return
        if self.is_open and not self.was_reset and not mux.is_over and self.id:
            if not self.out_ended:
                self._break(CANCEL if mux.is_client else INTERNAL_ERROR)
            elif not self.in_ended and not (mux.is_client and self.has_head and self.expected == 0):
                # Else all was said, and the end comes by itself.
                mux._await_rest(self.receive_window, False)
                if not mux.is_client and not mux.is_over:
                    # Some clients (curl 7) forget an answer that they get to know together with its reset.
                    mux._flush()
                mux._put_number(RST_STREAM, self.id, CANCEL if mux.is_client else NO_ERROR)
        self._let_go()
        mux._forget(self)

    def __repr__(self):
        return f"<Stream {self.id} received={self.received} sent={self.sent} reset={self.was_reset}>"
