# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The head of an HTTP/1.1 message (RFC 9112): strict, one pass, offsets instead of objects.

Law: nothing here is lenient and nothing is switchable. A line is judged once, when its CRLF has arrived;
whatever cannot become a head is refused at once, with the name of the rule it breaks. Longer than other
files because the parser, its tables and the renderer share one layout of offsets.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.string cimport memchr, memcmp, memcpy

from ..errors import Malformed

cdef extern from "arpa/inet.h":
    int AF_INET6
    int inet_pton(int family, const char *text, void *address)

NONE = NO_BODY
LENGTH = BY_LENGTH
CHUNKED = BY_CHUNKS
CLOSE = BY_CLOSE

# Classes of bytes: bit 1 token (RFC 9110 5.6.2), bit 2 field value (5.5: VCHAR, obs-text, SP, HTAB),
# bit 4 request target (visible ASCII without "#", which is never sent), bit 8 host name (RFC 3986 reg-name
# without percent-encoding), bit 16 digits.
cdef unsigned char CLASS[256]
cdef enum:
    TOKEN = 1
    VALUE = 2
    TARGET = 4
    HOSTNAME = 8
    DIGIT = 16

cdef unsigned char LOWER[256]      # ASCII letters in lower case, everything else as it is

cdef void _fill_classes() noexcept:
    cdef int c
    cdef bytes token = b"!#$%&'*+-.^_`|~"
    cdef bytes host = b"-._~!$&'()*+,;="
    for c in range(256):
        CLASS[c] = 0
        LOWER[c] = c + 32 if 65 <= c <= 90 else c
        if c == 9 or (c >= 32 and c != 127):
            CLASS[c] |= VALUE
        if 33 <= c <= 126 and c != 35:
            CLASS[c] |= TARGET
        if 48 <= c <= 57 or 65 <= c <= 90 or 97 <= c <= 122:
            CLASS[c] |= TOKEN | HOSTNAME
        if 48 <= c <= 57:
            CLASS[c] |= DIGIT
    for c in token:
        CLASS[c] |= TOKEN
    for c in host:
        CLASS[c] |= HOSTNAME

_fill_classes()

# Fields that mean something to the proxy itself. Those from HOP on never travel on as they came.
cdef enum:
    PLAIN = 0
    K_CONTENT_LENGTH = 1
    K_EXPECT = 2
    K_DATE = 3
    K_HOST = 4
    HOP = 5
    K_CONNECTION = 5
    K_KEEP_ALIVE = 6
    K_PROXY_CONNECTION = 7
    K_TE = 8
    K_TRAILER = 9
    K_TRANSFER_ENCODING = 10
    K_UPGRADE = 11
    K_HTTP2_SETTINGS = 12
    K_FORWARDING = 13

cdef inline bint _same(const unsigned char *name, const char *lower, Py_ssize_t size) noexcept:
    """Whether a name equals one in lower case."""
    cdef Py_ssize_t i
    for i in range(size):
        if LOWER[name[i]] != <unsigned char>lower[i]:
            return False
    return True

cdef inline bint _same_loosely(const unsigned char *name, const char *lower, Py_ssize_t size) noexcept:
    """As `_same`, with "_" for "-": CGI-style apps cannot tell X_Real_IP from X-Real-IP."""
    cdef Py_ssize_t i
    for i in range(size):
        if LOWER[name[i]] != <unsigned char>lower[i] and not (name[i] == 95 and lower[i] == 45):
            return False
    return True

cdef int _kind(const unsigned char *name, Py_ssize_t size) noexcept:
    if size == 4:
        if _same(name, b"host", 4):
            return K_HOST
        if _same(name, b"date", 4):
            return K_DATE
    elif size == 10:
        if _same(name, b"connection", 10):
            return K_CONNECTION
        if _same(name, b"keep-alive", 10):
            return K_KEEP_ALIVE
    elif size == 14:
        if _same(name, b"content-length", 14):
            return K_CONTENT_LENGTH
        if _same(name, b"http2-settings", 14):
            return K_HTTP2_SETTINGS
    elif size == 17:
        if _same(name, b"transfer-encoding", 17):
            return K_TRANSFER_ENCODING
        if _same_loosely(name, b"x-forwarded-proto", 17):
            return K_FORWARDING
    elif size == 15:
        if _same_loosely(name, b"x-forwarded-for", 15):
            return K_FORWARDING
    elif size == 16:
        if _same_loosely(name, b"x-forwarded-host", 16) or _same_loosely(name, b"x-forwarded-port", 16):
            return K_FORWARDING
        if _same(name, b"proxy-connection", 16):
            return K_PROXY_CONNECTION
    elif size == 9:
        if _same_loosely(name, b"x-real-ip", 9):
            return K_FORWARDING
    elif size == 7:
        if _same(name, b"upgrade", 7):
            return K_UPGRADE
        if _same(name, b"trailer", 7):
            return K_TRAILER
    elif size == 6:
        if _same(name, b"expect", 6):
            return K_EXPECT
    elif size == 2:
        if _same(name, b"te", 2):
            return K_TE
    return PLAIN

cdef int refuse(str rule, int status) except -1:
    raise Malformed(rule, status)

cdef Py_ssize_t check_field(const unsigned char *data, Py_ssize_t start, Py_ssize_t end,
                            Py_ssize_t *value, Py_ssize_t *value_len) except -1:
    """Judge one field line, CRLF excluded. Returns the length of the name; sets where the value is."""
    cdef Py_ssize_t i = start, last = end, j
    if data[i] == 32 or data[i] == 9:
        refuse("obs_fold", 400)
    while i < end and CLASS[data[i]] & TOKEN:
        i += 1
    if i == end:
        refuse("missing_colon", 400)
    if data[i] != 58:
        if data[i] == 13:
            refuse("bare_cr", 400)
        j = i
        while j < end and (data[j] == 32 or data[j] == 9):
            j += 1
        if j > i and j < end and data[j] == 58:
            refuse("space_before_colon", 400)
        refuse("bad_field_name", 400)
    if i == start:
        refuse("bad_field_name", 400)
    j = i + 1
    while j < end and (data[j] == 32 or data[j] == 9):
        j += 1
    while last > j and (data[last - 1] == 32 or data[last - 1] == 9):
        last -= 1
    value[0] = j
    value_len[0] = last - j
    while j < last:
        if not CLASS[data[j]] & VALUE:
            refuse("bare_cr" if data[j] == 13 else "bad_field_value", 400)
        j += 1
    return i - start


cdef class Limits:
    """Bounds of one head."""

    def __init__(self, max_header_size=32768, max_headers=100, max_target_size=8192):
        self.max_header_size = max_header_size
        self.max_headers = max_headers
        self.max_target_size = max_target_size


cdef inline int _mark(const unsigned char *name, Py_ssize_t size) noexcept:
    """0 … 63: names that are the same have the same. Most fields differ from all of a set in it."""
    cdef int first = 0 if size == 0 else 45 if name[0] == 95 else LOWER[name[0]]
    # By these factors the fields of browsers hardly ever meet those that balancers set.
    return (2 * size + first) & 63


cdef class Names:
    """A compiled set of field names to leave out: case does not matter, nor "_" where the set has "-"."""

    def __init__(self, names):
        cdef bytes name
        self.names = tuple({bytes(name).lower(): None for name in names})
        self.marks = 0
        for name in self.names:
            self.marks |= 1ULL << _mark(<const unsigned char *>PyBytes_AS_STRING(name), len(name))

    def __or__(self, other):
        return Names(self.names + (<Names>other).names)

    def __contains__(self, bytes name):
        return self.has(<const unsigned char *>PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))

    cdef bint has(self, const unsigned char *name, Py_ssize_t size) noexcept:
        cdef bytes candidate
        if not self.marks >> _mark(name, size) & 1:
            return False
        for candidate in self.names:
            if PyBytes_GET_SIZE(candidate) == size and _same_loosely(name, PyBytes_AS_STRING(candidate), size):
                return True
        return False


@cython.no_gc
cdef class Head:
    """What requests and responses share."""

    def __cinit__(self):
        self.lines = NULL
        self.host_line = -1
        self.upgrade_line = -1

    def __dealloc__(self):
        PyMem_Free(self.lines)

    @property
    def raw(self):
        return self._raw

    def feed(self, bytes data):
        return self.feed_bytes(<const unsigned char *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    cdef Py_ssize_t feed_bytes(self, const unsigned char *data, Py_ssize_t size) except -1:
        cdef const unsigned char *newline
        cdef Py_ssize_t end
        if size < self.scanned or self._raw is not None:
            raise ValueError("a head is fed all of its bytes each time, until it is complete")
        while True:
            if not self.first_done and size > self.start and not CLASS[data[self.start]] & TOKEN:
                if data[self.start] != 13 or self.skipped or not self.may_skip:
                    # A ClientHello is a record of handshakes: 22. Who forgets `tls` finds the word in the log.
                    refuse("tls_on_plain_port" if data[self.start] == 22 else "bad_start", 400)
            newline = <const unsigned char *>memchr(data + self.scanned, 10, size - self.scanned)
            if newline == NULL:
                self.scanned = size
                self._too_large(size)
                return 0
            end = newline - data
            if end == 0 or data[end - 1] != 13:
                refuse("bare_lf", 400)
            self.scanned = end + 1
            if end - 1 - self.skipped > self.limits.max_header_size:
                self._too_large(end + 1)
            if end - 1 == self.start:
                if self.first_done:
                    break
                # An empty line ahead of a request is skipped, once (RFC 9112 section 2.2).
                self.skipped = end + 1
            elif self.first_done:
                self._field(data, self.start, end - 1)
            else:
                self._first_line(data, self.start, end - 1)
                self.first_done = True
            self.start = end + 1
        if end + 1 - self.skipped > self.limits.max_header_size:
            refuse("header_section_too_large", 431)
        self._raw = PyBytes_FromStringAndSize(<const char *>data + self.skipped, end + 1 - self.skipped)
        self._finish()
        return end + 1

    cdef int _too_large(self, Py_ssize_t size) except -1:
        if size - self.skipped > self.limits.max_header_size:
            refuse("header_section_too_large", 431)
        return 0

    cdef int _first_line(self, const unsigned char *data, Py_ssize_t start, Py_ssize_t end) except -1:
        raise NotImplementedError

    cdef int _finish(self) except -1:
        raise NotImplementedError

    cdef int _field(self, const unsigned char *data, Py_ssize_t start, Py_ssize_t end) except -1:
        cdef Py_ssize_t value = 0, value_len = 0
        cdef Py_ssize_t name_len = check_field(data, start, end, &value, &value_len)
        cdef Field *field
        cdef void *grown
        if self.count >= self.limits.max_headers:
            refuse("too_many_fields", 431)
        if self.count == self.capacity:
            # 20 fields are as much as Python's small blocks hold, and more than most heads have.
            grown = PyMem_Realloc(self.lines, (self.capacity * 2 + 20) * sizeof(Field))
            if grown == NULL:
                raise MemoryError
            self.lines = <Field *>grown
            self.capacity = self.capacity * 2 + 20
        field = &self.lines[self.count]
        field.line = start - self.skipped
        field.line_end = end + 2 - self.skipped
        field.name_len = name_len
        field.value = value - self.skipped
        field.value_len = value_len
        field.kind = _kind(data + start, name_len)
        self.count += 1
        if field.kind != PLAIN:
            self._known(data + self.skipped, field, self.count - 1)
        return 0

    cdef int _known(self, const unsigned char *data, Field *field, int index) except -1:
        cdef const unsigned char *value = data + field.value
        cdef int kind = field.kind
        cdef Py_ssize_t i
        if kind == K_HOST:
            if self.host_line >= 0:
                refuse("duplicate_host", 400)
            self.host_line = index
        elif kind == K_CONTENT_LENGTH:
            if self.has_length:
                refuse("duplicate_content_length", 400)
            self.has_length = True
            if not 0 < field.value_len <= 18:
                refuse("bad_content_length", 400)
            for i in range(field.value_len):
                if not CLASS[value[i]] & DIGIT:
                    refuse("bad_content_length", 400)
                self.length = self.length * 10 + (value[i] - 48)
        elif kind == K_TRANSFER_ENCODING:
            if self.has_coding or field.value_len == 0:
                refuse("bad_transfer_encoding", 400)
            self.has_coding = True
            if field.value_len != 7 or not _same(value, b"chunked", 7):
                codings = [c.strip() for c in (<bytes>value[:field.value_len]).lower().split(b",")]
                last = codings.pop()
                if not last or b"" in codings or b"chunked" in codings:
                    refuse("bad_transfer_encoding", 400)
                refuse("unknown_transfer_coding", 501)
        elif kind == K_CONNECTION:
            self._connection(value, field.value_len)
        elif kind == K_UPGRADE:
            self.upgrade_line = index
        elif kind == K_DATE:
            self.has_date = True
        return 0

    cdef int _connection(self, const unsigned char *value, Py_ssize_t size) except -1:
        cdef Py_ssize_t at = 0, stop, last
        while at < size:
            stop = at
            while stop < size and value[stop] != 44:
                stop += 1
            last = stop
            while at < last and (value[at] == 32 or value[at] == 9):
                at += 1
            while last > at and (value[last - 1] == 32 or value[last - 1] == 9):
                last -= 1
            if last - at == 5 and _same(value + at, b"close", 5):
                self.connection_close = True
            elif last - at == 10 and _same(value + at, b"keep-alive", 10):
                self.connection_keep_alive = True
            elif last - at == 7 and _same(value + at, b"upgrade", 7):
                self.connection_upgrade = True
            elif last > at:
                self.has_named = True
            at = stop + 1
        return 0

    cdef bint _is_named(self, const unsigned char *name, Py_ssize_t size) noexcept:
        """Whether a Connection field names this field (RFC 9110 section 7.6.1)."""
        cdef const unsigned char *raw = <const unsigned char *>PyBytes_AS_STRING(self._raw)
        cdef const unsigned char *value
        cdef Py_ssize_t i, at, stop
        cdef int k
        for k in range(self.count):
            if self.lines[k].kind != K_CONNECTION:
                continue
            value = raw + self.lines[k].value
            at = 0
            while at < self.lines[k].value_len:
                while at < self.lines[k].value_len and (value[at] == 32 or value[at] == 9 or value[at] == 44):
                    at += 1
                stop = at
                while stop < self.lines[k].value_len and value[stop] not in (32, 9, 44):
                    stop += 1
                if stop - at == size and size:
                    for i in range(size):
                        if LOWER[value[at + i]] != LOWER[name[i]]:
                            break
                    else:
                        return True
                at = stop
        return False

    cdef bytes _value(self, int index):
        cdef Field *field = &self.lines[index]
        return PyBytes_FromStringAndSize(PyBytes_AS_STRING(self._raw) + field.value, field.value_len)

    cdef int _complete(self) except -1:
        if self._raw is None:
            raise ValueError("the head is not complete")
        return 0

    def get(self, bytes name):
        self._complete()
        cdef bytes lower = name.lower()
        cdef const unsigned char *raw = <const unsigned char *>PyBytes_AS_STRING(self._raw)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(lower)
        cdef int i
        for i in range(self.count):
            if self.lines[i].name_len == size and _same(raw + self.lines[i].line, PyBytes_AS_STRING(lower), size):
                return self._value(i)
        return None

    def get_all(self, bytes name):
        self._complete()
        cdef bytes lower = name.lower()
        cdef const unsigned char *raw = <const unsigned char *>PyBytes_AS_STRING(self._raw)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(lower)
        cdef int i
        return [
            self._value(i)
            for i in range(self.count)
            if self.lines[i].name_len == size and _same(raw + self.lines[i].line, PyBytes_AS_STRING(lower), size)
        ]

    def fields(self):
        cdef int i
        return [
            (self._raw[self.lines[i].line:self.lines[i].line + self.lines[i].name_len], self._value(i))
            for i in range(self.count)
        ]


# The authority of the last head that was asked for it, and the host in it; None: nobody has asked for that.
cdef bytes _authority = b""
cdef str _host = None

cdef bytes _GET = b"GET"
cdef bytes _POST = b"POST"
cdef bytes _HEAD = b"HEAD"


cdef bytes _method(const char *at, Py_ssize_t size):
    """One object for each method that is frequent."""
    if size == 3 and memcmp(at, b"GET", 3) == 0:
        return _GET
    if size == 4 and memcmp(at, b"POST", 4) == 0:
        return _POST
    if size == 4 and memcmp(at, b"HEAD", 4) == 0:
        return _HEAD
    return PyBytes_FromStringAndSize(at, size)


@cython.no_gc
cdef class RequestHead(Head):
    """A request's head."""

    def __init__(self, Limits limits):
        self.limits = limits
        self.may_skip = True

    cdef int _too_large(self, Py_ssize_t size) except -1:
        # 64: the longest method, the version and the spaces around the target.
        if not self.first_done and size - self.start > self.limits.max_target_size + 64:
            refuse("target_too_long", 414)
        if size - self.skipped > self.limits.max_header_size:
            refuse("header_section_too_large", 431)
        return 0

    cdef int _first_line(self, const unsigned char *data, Py_ssize_t start, Py_ssize_t end) except -1:
        cdef Py_ssize_t at = start, target
        while at < end and CLASS[data[at]] & TOKEN:
            at += 1
        if at == end or data[at] != 32 or at == start:
            refuse("bare_cr" if at < end and data[at] == 13 else "bad_request_line", 400)
        if at - start > 32:
            refuse("bad_method", 400)
        self.method_len = at - start
        target = at + 1
        at = target
        while at < end and CLASS[data[at]] & TARGET:
            at += 1
        if at - target > self.limits.max_target_size:
            refuse("target_too_long", 414)
        if at == end:
            refuse("http09" if at > target else "bad_request_line", 400)
        if data[at] != 32 or at == target:
            refuse("bare_cr" if data[at] == 13 else "bad_target" if at > target else "bad_request_line", 400)
        self._version(data, start, at + 1, end)
        self.target_at = target - self.skipped
        self.target_len = at - target
        if self.method_len == 7 and memcmp(data + start, b"CONNECT", 7) == 0:
            refuse("connect_refused", 405)
        if data[target] == 47:
            self.origin_at = self.target_at
            self.origin_len = self.target_len
        elif data[target] == 42 and self.target_len == 1:
            if self.method_len != 7 or memcmp(data + start, b"OPTIONS", 7) != 0:
                refuse("bad_target", 400)
            self.origin_at = self.target_at
            self.origin_len = 1
        else:
            self._absolute(data, target, at)
        return 0

    cdef int _version(self, const unsigned char *data, Py_ssize_t start, Py_ssize_t at, Py_ssize_t end) except -1:
        if end - at != 8 or memcmp(data + at, b"HTTP/", 5) != 0 or data[at + 6] != 46:
            if end > at and data[end - 1] == 13:
                refuse("bare_cr", 400)
            refuse("bad_request_line", 400)
        if memcmp(data + at + 5, b"1.1", 3) == 0:
            self.version = 11
        elif memcmp(data + at + 5, b"1.0", 3) == 0:
            self.version = 10
        elif not (CLASS[data[at + 5]] & DIGIT and CLASS[data[at + 7]] & DIGIT):
            refuse("bad_request_line", 400)
        elif end - start == 14 and memcmp(data + start, b"PRI * HTTP/2.0", 14) == 0:
            refuse("http2_preface", 505)
        else:
            refuse("unsupported_version", 505)
        return 0

    cdef int _absolute(self, const unsigned char *data, Py_ssize_t at, Py_ssize_t end) except -1:
        """absolute-form (RFC 9112 section 3.2.2): its authority replaces the Host field."""
        cdef Py_ssize_t stop
        if end - at > 7 and _same(data + at, b"http://", 7):
            at += 7
        elif end - at > 8 and _same(data + at, b"https://", 8):
            at += 8
        else:
            refuse("bad_target", 400)
        stop = at
        while stop < end and data[stop] != 47 and data[stop] != 63:
            stop += 1
        if stop == at:
            refuse("bad_target", 400)
        self.authority_at = at - self.skipped
        self.authority_len = stop - at
        self.origin_at = stop - self.skipped
        self.origin_len = end - stop
        return 0

    cdef int _finish(self) except -1:
        cdef Field *host
        cdef int i
        self.method = _method(PyBytes_AS_STRING(self._raw), self.method_len)
        if self.version == 11 and self.host_line < 0:
            refuse("missing_host", 400)
        if self.host_line >= 0:
            host = &self.lines[self.host_line]
            if host.value_len or self.version == 11:
                self._authority(host.value, host.value_len)
        if self.authority_len:
            self._authority(self.authority_at, self.authority_len)
        elif self.host_line >= 0:
            self.authority_at = self.lines[self.host_line].value
            self.authority_len = self.lines[self.host_line].value_len
        if self.has_coding:
            if self.has_length:
                refuse("te_with_cl", 400)
            if self.version == 10:
                refuse("te_in_http10", 400)
            self.framing = BY_CHUNKS
        elif self.has_length:
            self.framing = BY_LENGTH
        if self.version == 11:
            self.keep_alive = not self.connection_close
        else:
            self.keep_alive = self.connection_keep_alive and not self.connection_close
        for i in range(self.count):
            if self.lines[i].kind == K_EXPECT:
                if self._value(i).lower() != b"100-continue":
                    refuse("unknown_expectation", 417)
                # An HTTP/1.0 client cannot wait for 100 (RFC 9110 section 10.1.1).
                self.expect_continue = self.version == 11
        self.is_sound = True
        return 0

    cdef int _authority(self, Py_ssize_t at, Py_ssize_t size) except -1:
        """uri-host [ ":" port ] (RFC 9110 section 7.2); user information is refused (section 4.2.4)."""
        cdef const unsigned char *data = <const unsigned char *>PyBytes_AS_STRING(self._raw) + at
        cdef Py_ssize_t i = 0
        cdef long port = 0
        cdef char text[48]
        cdef unsigned char address[16]
        if size == 0:
            refuse("bad_host", 400)
        if data[0] == 91:
            while i < size and i < 46 and data[i] != 93:
                text[i] = data[i]
                i += 1
            if i == size or data[i] != 93:
                refuse("bad_host", 400)
            text[i] = 0
            if inet_pton(AF_INET6, text + 1, address) != 1:
                refuse("bad_host", 400)
            i += 1
        else:
            while i < size and CLASS[data[i]] & HOSTNAME:
                i += 1
            if i == 0 or i == 1 and data[0] == 46:
                refuse("bad_host", 400)
        self.name_len = i
        self.port = None
        if i < size:
            if data[i] != 58 or size - i > 6:
                refuse("bad_host", 400)
            if size - i == 1:
                return 0
            i += 1
            while i < size:
                if not CLASS[data[i]] & DIGIT:
                    refuse("bad_host", 400)
                port = port * 10 + (data[i] - 48)
                i += 1
            if port > 65535:
                refuse("bad_host", 400)
            self.port = port
        return 0

    @property
    def target(self):
        return self._raw[self.target_at:self.target_at + self.target_len]

    @property
    def origin(self):
        return self._origin()

    cdef bytes _origin(self):
        cdef bytes origin = self._raw[self.origin_at:self.origin_at + self.origin_len]
        if not origin:
            return b"*" if self.method == b"OPTIONS" else b"/"
        return origin if origin[0] != 63 else b"/" + origin

    @property
    def path(self):
        cdef bytes origin = self._origin()
        cdef Py_ssize_t mark = origin.find(b"?")
        return origin if mark < 0 else origin[:mark]

    @property
    def query(self):
        cdef bytes origin = self._origin()
        cdef Py_ssize_t mark = origin.find(b"?")
        return b"" if mark < 0 else origin[mark + 1:]

    cpdef str normal(self):
        cdef const unsigned char *origin
        cdef unsigned char before = 0
        cdef Py_ssize_t size = 0
        if not self.is_sound or self.origin_len == 0:
            return None
        origin = <const unsigned char *>PyBytes_AS_STRING(self._raw) + self.origin_at
        if origin[0] != 47:
            return None
        while size < self.origin_len and origin[size] != 63:
            if origin[size] == 37 or before == 47 and (origin[size] == 47 or origin[size] == 46):
                return None
            before = origin[size]
            size += 1
        return PyUnicode_DecodeASCII(<const char *>origin, size, NULL)

    @property
    def authority(self):
        global _authority, _host
        cdef const char *at
        if not self.is_sound:
            return b""
        at = PyBytes_AS_STRING(self._raw) + self.authority_at
        # Clients ask for the same again and again: it is one object as long as they do.
        if PyBytes_GET_SIZE(_authority) != self.authority_len or memcmp(PyBytes_AS_STRING(_authority), at, self.authority_len) != 0:
            _authority, _host = PyBytes_FromStringAndSize(at, self.authority_len), None
        return _authority

    @property
    def host(self):
        global _host
        cdef bytes authority
        if not self.is_sound:
            return ""
        if self._host is None:
            authority = self.authority
            if _host is None:
                _host = authority[:self.name_len].decode("ascii").lower().removesuffix(".")
            self._host = _host
        return self._host

    @property
    def upgrade(self):
        if self.upgrade_line < 0 or not self.connection_upgrade or self.version == 10:
            return None
        cdef bytes value = b", ".join(self.get_all(b"upgrade"))
        # h2c would carry requests past the routes (request smuggling); with it in the list nothing is upgraded.
        return None if b"h2c" in value.lower() or not value else value

    cpdef bytes render(self, bytes target=None, bytes host=None, Names drop=None, bytes extra=b"",
                       bint upgrade=False, int framing=-1, long long length=0, bint expect=True):
        cdef const unsigned char *raw = <const unsigned char *>PyBytes_AS_STRING(self._raw)
        cdef Py_ssize_t bound
        cdef Field *field
        cdef int i
        cdef char *out
        cdef bytes upgrade_value
        self._complete()
        upgrade_value = self.upgrade if upgrade and self.upgrade_line >= 0 else None
        if target is None:
            target = self._origin()
        if framing < 0:
            framing = self.framing
            length = self.length
        bound = (PyBytes_GET_SIZE(self._raw) + PyBytes_GET_SIZE(target) + PyBytes_GET_SIZE(extra)
                 + (0 if host is None else PyBytes_GET_SIZE(host)) + self.authority_len + 256)
        out = _scratch(bound)
        out = _put(out, <const char *>raw, self.method_len + 1)
        out = _put(out, PyBytes_AS_STRING(target), PyBytes_GET_SIZE(target))
        out = _put(out, b" HTTP/1.1\r\n", 11)
        if host is not None:
            out = _put(out, b"Host: ", 6)
            out = _put(out, PyBytes_AS_STRING(host), PyBytes_GET_SIZE(host))
            out = _put(out, b"\r\n", 2)
        elif self.authority_len:
            out = _put(out, b"Host: ", 6)
            out = _put(out, <const char *>raw + self.authority_at, self.authority_len)
            out = _put(out, b"\r\n", 2)
        for i in range(self.count):
            field = &self.lines[i]
            if field.kind >= K_HOST:
                continue
            # An expectation of HTTP/1.0 is ignored (RFC 9110 section 10.1.1): on 1.1 it would count.
            if field.kind == K_CONTENT_LENGTH or (field.kind == K_EXPECT and not (expect and self.version == 11)):
                continue
            if self.has_named and self._is_named(raw + field.line, field.name_len):
                continue
            if drop is not None and drop.has(raw + field.line, field.name_len):
                continue
            out = _put(out, <const char *>raw + field.line, field.line_end - field.line)
        if framing == BY_CHUNKS:
            out = _put(out, b"Transfer-Encoding: chunked\r\n", 28)
        elif framing == BY_LENGTH:
            out = _put(out, b"Content-Length: ", 16)
            out = _put_number(out, length)
            out = _put(out, b"\r\n", 2)
        if upgrade_value is not None:
            out = _put(out, b"Connection: upgrade\r\nUpgrade: ", 30)
            out = _put(out, PyBytes_AS_STRING(upgrade_value), PyBytes_GET_SIZE(upgrade_value))
            out = _put(out, b"\r\n", 2)
        out = _put(out, PyBytes_AS_STRING(extra), PyBytes_GET_SIZE(extra))
        out = _put(out, b"\r\n", 2)
        return PyBytes_FromStringAndSize(scratch, out - scratch)

    def __repr__(self):
        return f"<RequestHead {self._raw[:60]!r}>"


@cython.no_gc
cdef class ResponseHead(Head):
    """A response's head."""

    def __init__(self, Limits limits, bytes request_method=b"GET"):
        self.limits = limits
        self.request_method = request_method

    cdef int _first_line(self, const unsigned char *data, Py_ssize_t start, Py_ssize_t end) except -1:
        cdef Py_ssize_t at
        if end - start < 12 or memcmp(data + start, b"HTTP/", 5) != 0 or data[start + 6] != 46:
            refuse("bad_status_line", 400)
        if memcmp(data + start + 5, b"1.1", 3) == 0:
            self.version = 11
        elif memcmp(data + start + 5, b"1.0", 3) == 0:
            self.version = 10
        elif CLASS[data[start + 5]] & DIGIT and CLASS[data[start + 7]] & DIGIT:
            refuse("unsupported_version", 505)
        else:
            refuse("bad_status_line", 400)
        if data[start + 8] != 32:
            refuse("bad_status_line", 400)
        for at in range(start + 9, start + 12):
            if not CLASS[data[at]] & DIGIT:
                refuse("bad_status", 400)
            self.status = self.status * 10 + (data[at] - 48)
        if not 100 <= self.status <= 599:
            refuse("bad_status", 400)
        at = start + 12
        # Some servers leave out the space when there is no reason; the line is unambiguous without it.
        if at < end:
            if data[at] != 32:
                refuse("bad_status", 400)
            at += 1
        self.reason_at = at - self.skipped
        self.reason_len = end - at
        while at < end:
            if not CLASS[data[at]] & VALUE:
                refuse("bare_cr" if data[at] == 13 else "bad_status_line", 400)
            at += 1
        return 0

    cdef int _finish(self) except -1:
        if self.has_coding:
            if self.has_length:
                refuse("te_with_cl", 400)
            if self.version == 10:
                refuse("te_in_http10", 400)
        if self.status < 200 or self.status == 204 or self.status == 304 or self.request_method == b"HEAD":
            self.framing = NO_BODY
        elif self.has_coding:
            self.framing = BY_CHUNKS
        elif self.has_length:
            self.framing = BY_LENGTH
        else:
            self.framing = BY_CLOSE
        if self.framing != BY_LENGTH:
            self.length = 0
        if self.version == 11:
            self.keep_alive = not self.connection_close and self.framing != BY_CLOSE
        else:
            self.keep_alive = (self.connection_keep_alive and not self.connection_close
                               and self.framing != BY_CLOSE)
        return 0

    @classmethod
    def make(cls, int status, fields, *, long long length=-1, bytes request_method=b"GET"):
        cdef ResponseHead head = cls(Limits(1 << 20, 1000), request_method)
        lines = [b"HTTP/1.1 %d %b\r\n" % (status, phrase(status))]
        lines += [b"%b: %b\r\n" % pair for pair in fields]
        if length >= 0:
            lines.append(b"Content-Length: %d\r\n" % length)
        cdef bytes data = b"".join(lines) + b"\r\n"
        if head.feed(data) != len(data) or head.count != len(lines) - 1:
            refuse("bad_field_value", 500)
        for line, (name, value) in enumerate(fields):
            if head.lines[line].name_len != len(name) or b"\n" in value:
                refuse("bad_field_value", 500)
        return head

    @property
    def reason(self):
        return self._raw[self.reason_at:self.reason_at + self.reason_len]

    @property
    def upgrade(self):
        return self._value(self.upgrade_line) if self.upgrade_line >= 0 else None

    cpdef bytes render(self, int framing, bint keep_alive, int client_version=11, Names drop=None,
                       bytes extra=b"", bint upgrade=False):
        cdef const unsigned char *raw = <const unsigned char *>PyBytes_AS_STRING(self._raw)
        cdef Field *field
        cdef int i
        self._complete()
        # A 426 must say to what (RFC 9110 section 15.5.22).
        cdef bint asks_upgrade = upgrade or (self.status == 426 and self.upgrade_line >= 0)
        # Content-Length describes what follows, or to HEAD and in 304 what would have followed.
        cdef bint with_length = (framing == BY_LENGTH or framing == NO_BODY) and self.status >= 200 and self.status != 204
        cdef char *out = _scratch(PyBytes_GET_SIZE(self._raw) * 2 + PyBytes_GET_SIZE(extra) + 256)
        out = _put(out, b"HTTP/1.1", 8)
        i = self.reason_at + self.reason_len
        out = _put(out, <const char *>raw + 8, i - 8)
        if i == 12:
            out = _put(out, b" ", 1)
        out = _put(out, b"\r\n", 2)
        for i in range(self.count):
            field = &self.lines[i]
            if field.kind >= HOP and field.kind != K_FORWARDING and not (asks_upgrade and field.kind == K_UPGRADE):
                continue
            if field.kind == K_CONTENT_LENGTH and not with_length:
                continue
            if self.has_named and field.kind != K_CONTENT_LENGTH and self._is_named(raw + field.line, field.name_len):
                continue
            if drop is not None and drop.has(raw + field.line, field.name_len):
                continue
            out = _put(out, <const char *>raw + field.line, field.line_end - field.line)
        if framing == BY_CHUNKS:
            out = _put(out, b"Transfer-Encoding: chunked\r\n", 28)
        if asks_upgrade:
            out = _put(out, b"Connection: upgrade\r\n", 21)
        if self.status >= 200:
            if not keep_alive:
                out = _put(out, b"Connection: close\r\n", 19)
            elif client_version == 10:
                out = _put(out, b"Connection: keep-alive\r\n", 24)
        out = _put(out, PyBytes_AS_STRING(extra), PyBytes_GET_SIZE(extra))
        out = _put(out, b"\r\n", 2)
        return PyBytes_FromStringAndSize(scratch, out - scratch)

    def __repr__(self):
        return f"<ResponseHead {self._raw[:60]!r}>"


# One growing scratch area serves every render: nothing switches greenlets in between.
cdef char *scratch = NULL
cdef Py_ssize_t scratch_size = 0

cdef char *_scratch(Py_ssize_t size) except NULL:
    global scratch, scratch_size
    cdef void *grown
    if size > scratch_size:
        grown = PyMem_Realloc(scratch, size * 2)
        if grown == NULL:
            raise MemoryError
        scratch = <char *>grown
        scratch_size = size * 2
    return scratch

cdef inline char *_put(char *out, const char *data, Py_ssize_t size) noexcept:
    memcpy(out, data, size)
    return out + size

cdef char *_put_number(char *out, long long number) noexcept:
    cdef char digits[20]
    cdef int at = 20
    while True:
        at -= 1
        digits[at] = 48 + number % 10
        number //= 10
        if number == 0:
            break
    return _put(out, digits + at, 20 - at)

cdef dict _PHRASES = {}

cdef bytes phrase(int status):
    if not _PHRASES:
        from http import HTTPStatus
        _PHRASES.update({int(s): s.phrase.encode() for s in HTTPStatus})
        _PHRASES[499] = b"Client Closed Request"
    return _PHRASES.get(status, b"Unknown")
