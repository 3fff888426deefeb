# cython: language_level=3
"""C side of head.pyx, for the channel that feeds heads from its own buffer."""

cdef enum:
    NO_BODY = 0
    BY_LENGTH = 1
    BY_CHUNKS = 2
    BY_CLOSE = 3

cdef struct Field:
    unsigned int line       # offset of the line's first byte
    unsigned int line_end   # offset just behind its CRLF
    unsigned int name_len
    unsigned int value
    unsigned int value_len
    int kind

cdef class Limits:
    cdef readonly Py_ssize_t max_header_size
    cdef readonly Py_ssize_t max_headers
    cdef readonly Py_ssize_t max_target_size

cdef class Names:
    cdef readonly tuple names
    cdef unsigned long long marks
    cdef bint has(self, const unsigned char *name, Py_ssize_t size) noexcept

cdef class Head:
    cdef Limits limits
    cdef bytes _raw
    cdef Field *lines
    cdef int count
    cdef int capacity
    cdef Py_ssize_t scanned         # bytes searched for line ends so far
    cdef Py_ssize_t start           # offset of the current line
    cdef Py_ssize_t skipped         # bytes before the first line
    cdef bint may_skip              # one empty line ahead of the first
    cdef bint first_done
    cdef bint has_named             # Connection names fields that must not travel on
    cdef bint connection_close
    cdef bint connection_keep_alive
    cdef bint connection_upgrade
    cdef int host_line
    cdef int upgrade_line
    cdef bint has_length
    cdef bint has_coding
    cdef readonly bint has_date
    cdef readonly int version
    cdef readonly int framing
    cdef readonly long long length
    cdef readonly bint keep_alive
    cdef Py_ssize_t feed_bytes(self, const unsigned char *data, Py_ssize_t size) except -1
    cdef int _first_line(self, const unsigned char *data, Py_ssize_t start, Py_ssize_t end) except -1
    cdef int _finish(self) except -1
    cdef int _complete(self) except -1
    cdef int _too_large(self, Py_ssize_t size) except -1
    cdef int _field(self, const unsigned char *data, Py_ssize_t start, Py_ssize_t end) except -1
    cdef int _known(self, const unsigned char *data, Field *field, int index) except -1
    cdef int _connection(self, const unsigned char *value, Py_ssize_t size) except -1
    cdef bint _is_named(self, const unsigned char *name, Py_ssize_t size) noexcept
    cdef bytes _value(self, int index)

cdef class RequestHead(Head):
    cdef bint is_sound              # it is complete, and nothing in it was refused
    cdef readonly bint expect_continue
    cdef readonly bytes method
    cdef Py_ssize_t method_len, target_at, target_len, origin_at, origin_len
    cdef Py_ssize_t authority_at, authority_len, name_len
    cdef readonly object port
    cdef str _host
    cdef int _absolute(self, const unsigned char *data, Py_ssize_t at, Py_ssize_t end) except -1
    cdef int _authority(self, Py_ssize_t at, Py_ssize_t size) except -1
    cpdef str normal(self)
    cdef bytes _origin(self)
    cpdef bytes render(self, bytes target=*, bytes host=*, Names drop=*, bytes extra=*,
                       bint upgrade=*, int framing=*, long long length=*, bint expect=*)
    cdef int _version(self, const unsigned char *data, Py_ssize_t start, Py_ssize_t at, Py_ssize_t end) except -1

cdef class ResponseHead(Head):
    cdef readonly int status
    cdef bytes request_method
    cdef Py_ssize_t reason_at, reason_len
    cpdef bytes render(self, int framing, bint keep_alive, int client_version=*, Names drop=*,
                       bytes extra=*, bint upgrade=*)

cdef Py_ssize_t check_field(const unsigned char *data, Py_ssize_t start, Py_ssize_t end,
                            Py_ssize_t *value, Py_ssize_t *value_len) except -1
cdef int refuse(str rule, int status) except -1

cdef bytes phrase(int status)       # of a status line
