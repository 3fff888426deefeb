# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Heads of HTTP/2 messages to HTTP/1.1 heads and back (RFC 9113 section 8): strict, no objects per field.

Law: what comes out for the inside is read again by the one strict parser of heads. So this refuses what HTTP/1.1
could not write (RFC 9113 section 8.2.1) and what means something else there: nothing can be smuggled by
translation. A message that breaks a rule leaves the HPACK tables as they must be: only its stream is refused.
"""

import os
from base64 import b64encode

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp, memcpy

from .body cimport may_trail
from .head cimport Limits, phrase
from .hpack cimport AUTO, Block, Encoder, FieldSink, release, reserve

cdef enum:
    ORDINARY = 1024                 # bytes of a head

cdef unsigned char NAME[256]        # 1: may stand in a field name of HTTP/2, which has no capitals
cdef unsigned char LOWER[256]

cdef void _fill() noexcept:
    cdef int c
    cdef bytes token = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
    for c in range(256):
        NAME[c] = c in token
        LOWER[c] = c + 32 if 65 <= c <= 90 else c

_fill()


cdef inline bint _is(const unsigned char *data, Py_ssize_t size, const char *text, Py_ssize_t length) noexcept:
    return size == length and memcmp(data, text, length) == 0


cdef bint _same_host(const unsigned char *one, Py_ssize_t size, const unsigned char *other,
                     Py_ssize_t length) noexcept:
    cdef Py_ssize_t i
    if size != length:
        return False
    for i in range(size):
        if LOWER[one[i]] != LOWER[other[i]]:
            return False
    return True


cdef inline int _append(Block *block, const void *data, Py_ssize_t size) except -1:
    if block.size + size > block.capacity:
        reserve(block, size)
    memcpy(block.data + block.size, data, size)
    block.size += size
    return 0


cdef void slim(Block *block) noexcept:
    """Give back what an ordinary head does not need."""
    if block.capacity > ORDINARY:
        release(block)


cdef class HeadBuilder(FieldSink):
    """Takes the fields of one block after the other; gives the head or the trailer lines of each."""

    def __init__(self, Limits limits):
        self.limits = limits
        self.broken = ""

    def __dealloc__(self):
        release(&self.lines)
        release(&self.cookies)
        release(&self.pseudo)

    cdef int slim(self) except -1:
        """Give memory back."""
        slim(&self.lines)
        slim(&self.cookies)
        slim(&self.pseudo)
        return 0

    cdef int begin(self, int kind) except -1:
        """The next block is of this kind."""
        self.kind = kind
        self.lines.size = self.cookies.size = self.pseudo.size = 0
        self.total = self.count = 0
        self.seen_regular = self.is_connect = False
        self.method.size = self.scheme.size = self.authority.size = self.path.size = -1
        self.protocol.size = self.status.size = self.host.size = -1
        self.broken = ""
        self.refusal = 400
        self.length = -1
        self.code = 0
        return 0

    cdef int _break(self, str rule, int status) except -1:
        if not self.broken:
            self.broken = rule
            self.refusal = status
        return 0

    cdef int _put(self, Span *span, const unsigned char *value, Py_ssize_t value_len) except -1:
        if span.size >= 0:
            return self._break("repeated_pseudo_field", 400)
        span.at = self.pseudo.size
        span.size = value_len
        return _append(&self.pseudo, value, value_len)

    cdef int field(self, const unsigned char *name, Py_ssize_t name_len, const unsigned char *value,
                   Py_ssize_t value_len, bint sensitive) except -1:
        cdef Py_ssize_t i
        if self.broken:
            return 0
        if self.cookies.size and name_len == 6 and memcmp(name, b"cookie", 6) == 0:
            # One more piece of the same field.
            self.total += value_len + 2
        else:
            self.total += name_len + value_len + 32
            self.count += 1
        # What is kept is less than what RFC 9113 section 6.5.2 counts, so 32 bytes more a field are allowed for.
        if self.total > self.limits.max_header_size + 32 * self.limits.max_headers:
            return self._break("header_section_too_large", 431)
        if self.count > self.limits.max_headers + 5:
            return self._break("too_many_fields", 431)
        for i in range(value_len):
            if value[i] < 32 and value[i] != 9 or value[i] == 127:
                return self._break("bad_field_value", 400)
        if value_len and (value[0] == 32 or value[0] == 9 or value[value_len - 1] == 32 or value[value_len - 1] == 9):
            return self._break("bad_field_value", 400)
        if name_len and name[0] == 58:
            return self._pseudo(name, name_len, value, value_len)
        self.seen_regular = True
        if name_len == 0:
            return self._break("bad_field_name", 400)
        for i in range(name_len):
            if not NAME[name[i]]:
                return self._break("bad_field_name", 400)
        if name_len <= 17 and self._known(name, name_len, value, value_len):
            return 0
        if self.kind == OF_TRAILERS and not may_trail(<bytes>name[:name_len]):
            return 0
        reserve(&self.lines, name_len + value_len + 4)
        memcpy(self.lines.data + self.lines.size, name, name_len)
        self.lines.size += name_len
        self.lines.data[self.lines.size] = 58
        self.lines.data[self.lines.size + 1] = 32
        memcpy(self.lines.data + self.lines.size + 2, value, value_len)
        self.lines.size += value_len + 2
        self.lines.data[self.lines.size] = 13
        self.lines.data[self.lines.size + 1] = 10
        self.lines.size += 2
        return 0

    cdef int _pseudo(self, const unsigned char *name, Py_ssize_t name_len, const unsigned char *value,
                     Py_ssize_t value_len) except -1:
        cdef Py_ssize_t i
        if self.kind == OF_TRAILERS or self.seen_regular:
            return self._break("misplaced_pseudo_field", 400)
        for i in range(value_len):
            # In HTTP/1.1 a space would end what it stands in.
            if value[i] <= 32:
                return self._break("bad_pseudo_field", 400)
        if self.kind == OF_RESPONSE:
            if not _is(name, name_len, b":status", 7):
                return self._break("unknown_pseudo_field", 400)
            if value_len != 3 or not (49 <= value[0] <= 57 and 48 <= value[1] <= 57 and 48 <= value[2] <= 57):
                return self._break("bad_status", 400)
            self.code = (value[0] - 48) * 100 + (value[1] - 48) * 10 + value[2] - 48
            return self._put(&self.status, value, value_len)
        if _is(name, name_len, b":path", 5):
            return self._put(&self.path, value, value_len)
        if _is(name, name_len, b":method", 7):
            return self._put(&self.method, value, value_len)
        if _is(name, name_len, b":scheme", 7):
            return self._put(&self.scheme, value, value_len)
        if _is(name, name_len, b":authority", 10):
            return self._put(&self.authority, value, value_len)
        if _is(name, name_len, b":protocol", 9):
            return self._put(&self.protocol, value, value_len)
        return self._break("unknown_pseudo_field", 400)

    cdef int _known(self, const unsigned char *name, Py_ssize_t name_len, const unsigned char *value,
                    Py_ssize_t value_len) except -1:
        """Fields that mean something here; 1 when this one is dealt with."""
        if name_len == 2:
            if not _is(name, 2, b"te", 2):
                return 0
            if not _is(value, value_len, b"trailers", 8):
                self._break("connection_field", 400)
            return 1
        if name_len == 4:
            if self.kind != OF_REQUEST or memcmp(name, b"host", 4) != 0:
                return 0
            if self.host.size >= 0:
                self._break("repeated_host", 400)
            else:
                self._put(&self.host, value, value_len)
            return 1
        if name_len == 6:
            if self.kind != OF_REQUEST or memcmp(name, b"cookie", 6) != 0:
                return 0
            # Sent in pieces, for the tables; one field for whoever speaks HTTP/1.1 (RFC 9113 section 8.2.3).
            if self.cookies.size:
                _append(&self.cookies, b"; ", 2)
            _append(&self.cookies, value, value_len)
            return 1
        if name_len == 14:
            if memcmp(name, b"content-length", 14) != 0:
                return 0
            self._content_length(value, value_len)
            return 1
        if name_len == 17 and self.protocol.size >= 0 and memcmp(name, b"sec-websocket-key", 17) == 0:
            # The one that we make takes its place.
            return 1
        if (_is(name, name_len, b"connection", 10) or _is(name, name_len, b"keep-alive", 10)
                or _is(name, name_len, b"upgrade", 7) or _is(name, name_len, b"proxy-connection", 16)
                or _is(name, name_len, b"transfer-encoding", 17)):
            self._break("connection_field", 400)
            return 1
        return 0

    cdef int _content_length(self, const unsigned char *value, Py_ssize_t value_len) except -1:
        cdef long long number = 0
        cdef Py_ssize_t i
        if self.kind == OF_TRAILERS:
            return 0
        if value_len == 0 or value_len > 18:
            return self._break("bad_content_length", 400)
        for i in range(value_len):
            if not 48 <= value[i] <= 57:
                return self._break("bad_content_length", 400)
            number = number * 10 + (value[i] - 48)
        if self.length >= 0:
            return 0 if self.length == number else self._break("bad_content_length", 400)
        self.length = number
        return 0

    cdef bytes request(self, bint ends):
        """The head of a request as HTTP/1.1 writes it; `ends`: no body follows. None when it breaks a rule."""
        cdef Span *authority = &self.authority
        cdef bytes target, head
        cdef bytes framing = b""
        if self.broken:
            return None
        if self.method.size <= 0:
            self._break("missing_method", 400)
            return None
        cdef bytes method = self.pseudo.data[self.method.at:self.method.at + self.method.size]
        if method == b"CONNECT":
            if self.protocol.size < 0:
                self._break("connect_refused", 405)
                return None
            if not _is(self.pseudo.data + self.protocol.at, self.protocol.size, b"websocket", 9):
                self._break("unknown_protocol", 501)
                return None
            self.is_connect = True
            method = b"GET"
        elif self.protocol.size >= 0:
            self._break("misplaced_pseudo_field", 400)
            return None
        if self.scheme.size < 0 or self.path.size <= 0:
            self._break("missing_pseudo_field", 400)
            return None
        target = self.pseudo.data[self.path.at:self.path.at + self.path.size]
        if target[0] != 47 and not (target == b"*" and method == b"OPTIONS"):
            self._break("bad_target", 400)
            return None
        if authority.size < 0:
            authority = &self.host
        elif self.host.size >= 0 and not _same_host(self.pseudo.data + self.host.at, self.host.size,
                                                    self.pseudo.data + authority.at, authority.size):
            self._break("authority_is_not_host", 400)
            return None
        if authority.size < 0:
            self._break("missing_host", 400)
            return None
        if self.is_connect:
            if ends:
                self._break("bad_websocket", 400)
                return None
            # A key has no meaning in HTTP/2, but the HTTP/1.1 server wants one (RFC 8441 section 5.1).
            framing = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: %b\r\n" % b64encode(
                os.urandom(16))
        elif self.length >= 0:
            if ends and self.length:
                self._break("content_length_mismatch", 400)
                return None
            framing = b"Content-Length: %d\r\n" % self.length
        elif not ends:
            framing = b"Transfer-Encoding: chunked\r\n"
        if self.cookies.size:
            framing += b"Cookie: %b\r\n" % <bytes>self.cookies.data[:self.cookies.size]
        return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b\r\n" % (
            method, target, <bytes>self.pseudo.data[authority.at:authority.at + authority.size],
            <bytes>self.lines.data[:self.lines.size], framing)

    cdef bytes response(self, bint ends):
        """The head of a response, interim or final. None when it breaks a rule."""
        cdef bytes framing = b""
        cdef bint is_empty
        if self.broken:
            return None
        if self.status.size < 0 or self.code == 101:
            self._break("missing_status" if self.status.size < 0 else "unasked_101", 502)
            return None
        is_empty = self.is_head_request or self.code == 204 or self.code == 304
        if self.code >= 200:
            if self.length >= 0:
                if ends and self.length and not is_empty:
                    self._break("content_length_mismatch", 502)
                    return None
                framing = b"Content-Length: %d\r\n" % self.length
            elif not is_empty:
                framing = b"Content-Length: 0\r\n" if ends else b"Transfer-Encoding: chunked\r\n"
        elif ends:
            self._break("interim_ends", 502)
            return None
        # HTTP/2 has no phrase; some clients of HTTP/1.1 do not count an answer without one.
        return b"HTTP/1.1 %d %b\r\n%b%b\r\n" % (
            self.code, phrase(self.code), <bytes>self.lines.data[:self.lines.size], framing)

    cdef bytes switched(self, bytes accept):
        """The head of a response that opens a WebSocket, as HTTP/1.1 has it (RFC 8441 section 5.1)."""
        return (b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Accept: %b\r\n%b\r\n" % (accept, <bytes>self.lines.data[:self.lines.size]))

    cdef bytes trailers(self):
        """The lines of the trailer fields. None when they break a rule."""
        return None if self.broken else <bytes>self.lines.data[:self.lines.size]


# -- what is sent

cdef Py_ssize_t head_end(const unsigned char *data, Py_ssize_t size) noexcept:
    """Where the head that `data` begins with ends; 0 when its end is not there."""
    cdef const unsigned char *at = data
    cdef const unsigned char *end = data + size
    while True:
        at = <const unsigned char *>memchr(at, 10, end - at)
        if at == NULL:
            return 0
        at += 1
        if end - at >= 2 and at[0] == 13 and at[1] == 10:
            return at + 2 - data


cdef bint _is_hop_by_hop(const unsigned char *name, Py_ssize_t size) noexcept:
    """Whether a field of the heads that we write has no place in HTTP/2; `name` in any case."""
    cdef unsigned char lower[17]
    cdef Py_ssize_t i
    if size != 7 and size != 10 and size != 16 and size != 17:
        return False
    for i in range(size):
        lower[i] = LOWER[name[i]]
    return (_is(lower, size, b"connection", 10) or _is(lower, size, b"keep-alive", 10)
            or _is(lower, size, b"upgrade", 7) or _is(lower, size, b"proxy-connection", 16)
            or _is(lower, size, b"transfer-encoding", 17))


cdef inline bint _same(const unsigned char *name, Py_ssize_t size, const char *lower, Py_ssize_t length) noexcept:
    cdef Py_ssize_t i
    if size != length:
        return False
    for i in range(length):
        if LOWER[name[i]] != <unsigned char>lower[i]:
            return False
    return True


cdef const unsigned char *_line(const unsigned char *at, const unsigned char *end, Span *name, Span *value) noexcept:
    """The field line at `at`, as offsets from it; gives where the next one begins, NULL at the empty line."""
    cdef const unsigned char *stop = <const unsigned char *>memchr(at, 10, end - at)
    cdef const unsigned char *colon
    cdef const unsigned char *last
    if stop == NULL or stop - at < 2:
        return NULL
    last = stop - 1
    colon = <const unsigned char *>memchr(at, 58, last - at)
    if colon == NULL:
        return NULL
    name.at = 0
    name.size = colon - at
    colon += 1
    while colon < last and (colon[0] == 32 or colon[0] == 9):
        colon += 1
    while last > colon and ((last - 1)[0] == 32 or (last - 1)[0] == 9):
        last -= 1
    value.at = colon - at
    value.size = last - colon
    return stop + 1


cdef int encode_response(Encoder encoder, Block *out, const unsigned char *head, Py_ssize_t size, bint is_connect,
                         Sent *sent) except -1:
    """The fields of a response head that we wrote; `is_connect`: 101 means that the stream is open."""
    cdef const unsigned char *end = head + size
    cdef const unsigned char *at = <const unsigned char *>memchr(head, 10, size) + 1
    cdef const unsigned char *following
    cdef unsigned char code[3]
    cdef Span name, value
    memcpy(code, head + 9, 3)
    sent.status = (code[0] - 48) * 100 + (code[1] - 48) * 10 + code[2] - 48
    sent.is_interim = sent.status < 200
    if sent.status == 101 and is_connect:
        memcpy(code, b"200", 3)
        sent.is_interim = False
    encoder.begin(out)
    encoder.encode(out, <const unsigned char *>b":status", 7, code, 3, AUTO)
    while True:
        following = _line(at, end, &name, &value)
        if following == NULL:
            return 0
        if not (_is_hop_by_hop(at, name.size) or is_connect and _same(at, name.size, b"sec-websocket-accept", 20)):
            encoder.encode(out, at, name.size, at + value.at, value.size, AUTO)
        at = following


cdef int encode_request(Encoder encoder, Block *out, const unsigned char *head, Py_ssize_t size,
                        const char *scheme, bint is_connect) except -1:
    """The fields of a request head that we wrote; `is_connect`: it asks for a WebSocket."""
    cdef const unsigned char *end = head + size
    cdef const unsigned char *lines = <const unsigned char *>memchr(head, 10, size) + 1
    cdef const unsigned char *space = <const unsigned char *>memchr(head, 32, size)
    cdef const unsigned char *at = lines
    cdef const unsigned char *following
    cdef Span name, value
    encoder.begin(out)
    if is_connect:
        encoder.encode(out, <const unsigned char *>b":method", 7, <const unsigned char *>b"CONNECT", 7, AUTO)
        encoder.encode(out, <const unsigned char *>b":protocol", 9, <const unsigned char *>b"websocket", 9, AUTO)
    else:
        encoder.encode(out, <const unsigned char *>b":method", 7, head, space - head, AUTO)
    encoder.encode(out, <const unsigned char *>b":scheme", 7, <const unsigned char *>scheme,
                   5 if scheme[4] else 4, AUTO)
    while True:
        following = _line(at, end, &name, &value)
        if following == NULL:
            break
        if _same(at, name.size, b"host", 4):
            encoder.encode(out, <const unsigned char *>b":authority", 10, at + value.at, value.size, AUTO)
            break
        at = following
    # "METHOD target HTTP/1.1\r\n": the version and the spaces around the target take 12 bytes.
    encoder.encode(out, <const unsigned char *>b":path", 5, space + 1, lines - 11 - (space + 1), AUTO)
    at = lines
    while True:
        following = _line(at, end, &name, &value)
        if following == NULL:
            break
        if not (_is_hop_by_hop(at, name.size) or _same(at, name.size, b"host", 4)
                or _same(at, name.size, b"te", 2)
                or is_connect and _same(at, name.size, b"sec-websocket-key", 17)):
            encoder.encode(out, at, name.size, at + value.at, value.size, AUTO)
        at = following
    # Trailer fields are passed on, and gRPC demands the word.
    encoder.encode(out, <const unsigned char *>b"te", 2, <const unsigned char *>b"trailers", 8, AUTO)
    return 0


cdef int encode_trailers(Encoder encoder, Block *out, const unsigned char *lines, Py_ssize_t size) except -1:
    """Trailer fields, given as lines."""
    cdef const unsigned char *end = lines + size
    cdef const unsigned char *at = lines
    cdef const unsigned char *following
    cdef Span name, value
    encoder.begin(out)
    while at < end:
        following = _line(at, end, &name, &value)
        if following == NULL:
            break
        if not _is_hop_by_hop(at, name.size):
            encoder.encode(out, at, name.size, at + value.at, value.size, AUTO)
        at = following
    return 0
