# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Chunked bodies (RFC 9112 section 7.1): decoded in place, strictly.

Law: what is passed on is framed anew, so nothing of the sender's framing (extensions, leading zeros,
forbidden trailer fields) ever reaches the other side.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy, memmove

from .head cimport check_field, refuse

cdef enum:
    SIZE = 0
    EXTENSION = 1
    SIZE_LF = 2
    DATA = 3
    DATA_CR = 4
    DATA_LF = 5
    TRAILER = 6
    END = 7

# RFC 9110 section 6.5.1: fields that frame, route, authenticate, or modify the request or the payload
# must not arrive after it.
cdef frozenset FORBIDDEN_TRAILERS = frozenset((
    b"transfer-encoding", b"content-length", b"content-encoding", b"content-type", b"content-range", b"trailer",
    b"host", b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade", b"expect", b"max-forwards",
    b"authorization", b"proxy-authorization", b"proxy-authenticate", b"www-authenticate", b"cookie", b"set-cookie",
    b"cache-control", b"age", b"expires", b"date", b"location", b"retry-after", b"vary", b"range", b"if-match",
    b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"if-range", b"pragma", b"warning",
    b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-proto", b"x-real-ip", b"forwarded",
))


cdef bint may_trail(bytes name):
    """Whether a field may arrive as a trailer."""
    return name.lower().replace(b"_", b"-") not in FORBIDDEN_TRAILERS


cdef inline int _hex(unsigned char byte) noexcept:
    if 48 <= byte <= 57:
        return byte - 48
    if 97 <= (byte | 0x20) <= 102:
        return (byte | 0x20) - 87
    return -1


cdef class ChunkedDecoder:
    """Takes chunked bytes, gives back the data."""

    def __init__(self, max_extension=1024, max_trailer=8192):
        self.max_extension = max_extension
        self.max_trailer = max_trailer
        self.trailer = bytearray()
        self.fields = []

    def feed(self, bytes data):
        cdef bytes copy = PyBytes_FromStringAndSize(NULL, PyBytes_GET_SIZE(data))
        cdef unsigned char *at = <unsigned char *>PyBytes_AS_STRING(copy)
        cdef Py_ssize_t consumed = 0, size
        memcpy(at, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        size = self.decode(at, PyBytes_GET_SIZE(data), &consumed)
        return copy[:size], consumed

    cdef Py_ssize_t decode(self, unsigned char *data, Py_ssize_t size, Py_ssize_t *consumed) except -1:
        """Decode in place: the data ends up at `data`, its length is returned."""
        cdef Py_ssize_t at = 0, out = 0, run
        cdef unsigned char byte
        cdef int digit
        while at < size and not self.done:
            byte = data[at]
            if self.state == DATA:
                run = size - at if size - at < self.left else <Py_ssize_t>self.left
                if out != at:
                    memmove(data + out, data + at, run)
                out += run
                at += run
                self.left -= run
                self.decoded += run
                if self.left == 0:
                    self.state = DATA_CR
                continue
            at += 1
            if self.state == SIZE:
                digit = _hex(byte)
                if digit >= 0:
                    self.digits += 1
                    if self.digits > 15:
                        refuse("chunk_size_overflow", 400)
                    self.left = self.left * 16 + digit
                elif self.digits == 0:
                    refuse("bad_chunk_size", 400)
                elif byte == 13:
                    self.state = SIZE_LF
                elif byte == 59:
                    self.state = EXTENSION
                    self.extension = 1
                    self.extensions += 1
                else:
                    refuse("bare_lf" if byte == 10 else "bad_chunk_size", 400)
            elif self.state == EXTENSION:
                self.extension += 1
                self.extensions += 1
                # Many small chunks must not carry more extensions than data.
                if self.extension > self.max_extension or self.extensions > 16 * self.max_extension + self.decoded:
                    refuse("chunk_extension_too_long", 400)
                if byte == 13:
                    self.state = SIZE_LF
                elif byte < 32 and byte != 9 or byte == 127:
                    refuse("bare_lf" if byte == 10 else "bad_chunk_size", 400)
            elif self.state == SIZE_LF:
                if byte != 10:
                    refuse("bare_cr", 400)
                self.state = DATA if self.left else TRAILER
                self.digits = 0
            elif self.state == DATA_CR:
                if byte != 13:
                    refuse("bare_lf" if byte == 10 else "bad_chunk_end", 400)
                self.state = DATA_LF
            elif self.state == DATA_LF:
                if byte != 10:
                    refuse("bad_chunk_end", 400)
                self.state = SIZE
            else:
                self._trailer_byte(byte)
        consumed[0] = at
        return out

    cdef int _trailer_byte(self, unsigned char byte) except -1:
        cdef bytes line
        cdef Py_ssize_t value = 0, value_len = 0, name_len, size
        self.trailer.append(byte)
        if len(self.trailer) > self.max_trailer:
            refuse("trailer_too_large", 431)
        if byte != 10:
            return 0
        if not self.trailer.endswith(b"\r\n"):
            refuse("bare_lf", 400)
        size = self.trailer.rfind(b"\r\n", 0, len(self.trailer) - 2)
        line = bytes(self.trailer[size + 2 if size >= 0 else 0:len(self.trailer) - 2])
        if not line:
            self.done = True
            self.state = END
            return 0
        name_len = check_field(<const unsigned char *>PyBytes_AS_STRING(line), 0, len(line), &value, &value_len)
        if may_trail(line[:name_len]):
            self.fields.append((line[:name_len], line[value:value + value_len]))
        return 0

    @property
    def trailers(self):
        return list(self.fields)

    cdef bytes trailer_lines(self):
        """The trailer fields, as they are sent on."""
        return b"".join([b"%b: %b\r\n" % pair for pair in self.fields])
