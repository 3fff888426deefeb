# cython: language_level=3
"""C side of h2_head.pyx."""

from .head cimport Limits
from .hpack cimport Block, Decoder, Encoder, FieldSink

cdef enum:
    OF_REQUEST = 0
    OF_RESPONSE = 1
    OF_TRAILERS = 2

cdef struct Span:
    Py_ssize_t at
    Py_ssize_t size     # -1: not there

cdef class HeadBuilder(FieldSink):
    cdef Limits limits
    cdef int kind
    cdef bint is_head_request       # its answer has no body, whatever it says
    cdef Block lines
    cdef Block cookies
    cdef Block pseudo
    cdef Py_ssize_t total
    cdef Py_ssize_t count
    cdef bint seen_regular
    cdef Span method, scheme, authority, path, protocol, status, host
    cdef readonly str broken        # the rule that the message breaks; "" while it breaks none
    cdef readonly int refusal       # the status that goes with it
    cdef readonly long long length  # Content-Length; -1: not there
    cdef readonly int code          # of a response
    cdef readonly bint is_connect   # extended CONNECT for a WebSocket
    cdef int slim(self) except -1
    cdef int begin(self, int kind) except -1
    cdef int _break(self, str rule, int status) except -1
    cdef int _pseudo(self, const unsigned char *name, Py_ssize_t name_len, const unsigned char *value,
                     Py_ssize_t value_len) except -1
    cdef int _known(self, const unsigned char *name, Py_ssize_t name_len, const unsigned char *value,
                    Py_ssize_t value_len) except -1
    cdef int _content_length(self, const unsigned char *value, Py_ssize_t value_len) except -1
    cdef int _put(self, Span *span, const unsigned char *value, Py_ssize_t value_len) except -1
    cdef bytes request(self, bint ends)
    cdef bytes response(self, bint ends)
    cdef bytes switched(self, bytes accept)
    cdef bytes trailers(self)

cdef struct Sent:       # what the head that is sent says
    int status
    bint is_interim

cdef void slim(Block *block) noexcept
cdef Py_ssize_t head_end(const unsigned char *data, Py_ssize_t size) noexcept
cdef int encode_response(Encoder encoder, Block *out, const unsigned char *head, Py_ssize_t size, bint is_connect,
                         Sent *sent) except -1
cdef int encode_request(Encoder encoder, Block *out, const unsigned char *head, Py_ssize_t size,
                        const char *scheme, bint is_connect) except -1
cdef int encode_trailers(Encoder encoder, Block *out, const unsigned char *lines, Py_ssize_t size) except -1
