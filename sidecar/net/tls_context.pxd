# cython: language_level=3
"""C side of tls_context.pyx, for the channel that handshakes with it."""

from .openssl cimport EVP_PKEY, OPENSSL_STACK, SSL_CTX, SSL_SESSION, X509, X509_STORE, VerifyCallback

cdef class Roots:
    cdef X509_STORE *store

cdef class Context:
    cdef SSL_CTX *ctx
    cdef readonly bint is_server
    cdef readonly list leaves           # DER of each leaf certificate
    cdef readonly bytes identity        # a session of one identity is never resumed under another
    cdef public object choose           # of a listener: str → Context
    cdef public object tickets          # of a certificate: seals and opens session tickets
    cdef public tuple protocols         # ALPN, best first
    cdef int min_version
    cdef int verify_mode
    cdef VerifyCallback verify_callback
    cdef dict sessions                  # towards servers: name → the last session, as bytes
    cdef int _use(self, OPENSSL_STACK *chain, X509 *leaf, EVP_PKEY *private, int number) except -1
    cdef SSL_SESSION *_session(self, str name) except? NULL
    cdef int _remember(self, str name, SSL_SESSION *session) except -1
