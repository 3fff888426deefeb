# cython: language_level=3
"""C side of tls_channel.pyx."""

from .channel cimport Channel, iovec
from .openssl cimport SSL
from .tls_context cimport Context

cdef struct Bytes:
    unsigned char *data
    Py_ssize_t start
    Py_ssize_t stop
    Py_ssize_t size

cdef class TlsChannel(Channel):
    cdef SSL *ssl
    cdef Bytes raw                      # ciphertext that was received and not opened yet
    cdef Bytes out                      # ciphertext that was made and not sent yet
    cdef Context context                # with which the connection began
    cdef Context chosen                 # whose certificate the server shows
    cdef readonly str sni               # the name that the client asked for; "" for none
    cdef readonly str trouble           # what OpenSSL said of the end of the connection; "" for nothing
    cdef readonly double handshake_seconds
    cdef Py_ssize_t owed                # plain bytes whose ciphertext is in `out`, not reported yet
    cdef Py_ssize_t told                # … of these, how many `sent` counts already
    cdef int reason                     # of OpenSSL, for `trouble`
    cdef int messages                   # handshake messages behind the handshake
    cdef bint wire_ready                # the socket may have something
    cdef bint wire_ended                # the socket has ended or is broken
    cdef bint is_established
    cdef bint is_ended                  # close_notify came
    cdef bint is_broken
    cdef bint is_busy                   # OpenSSL is on the stack
    cdef bint is_quiet                  # end without close_notify
    cdef bint is_finished               # close_notify was made
    cdef bint ends_soon                 # the socket's sending side ends behind what is in `out`
    cdef int _pull(self) noexcept
    cdef int _flush(self) noexcept
    cdef int _room(self, Py_ssize_t size) except -1
    cdef Py_ssize_t _settle(self) noexcept
    cdef Py_ssize_t _encrypt(self, iovec *pieces, int count) noexcept
    cdef int _write(self, const void *data, Py_ssize_t size) noexcept
    cdef int _stopped(self, int result) noexcept
    cdef void _mark(self) noexcept
    cdef void _free(self) noexcept
    cdef int _advance(self, double until) except -1
    cdef int _goodbye(self) noexcept
