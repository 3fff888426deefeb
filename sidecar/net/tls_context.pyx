# cython: language_level=3
"""A TLS context: certificates, keys, roots and options, as OpenSSL wants them.

Law: a mistake in what an administrator wrote raises TlsError with a sentence that says what is wrong, and the
error queue of the thread is empty afterwards. Nothing here reads files or asks a terminal for a passphrase.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from .openssl cimport (
    BIO,
    EVP_PKEY,
    OPENSSL_STACK,
    PEM_R_NO_START_LINE,
    SSL,
    SSL_CTRL_MODE,
    SSL_CTRL_SET_GROUPS_LIST,
    SSL_CTRL_SET_MIN_PROTO_VERSION,
    SSL_CTRL_SET_SESS_CACHE_MODE,
    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER,
    SSL_MODE_RELEASE_BUFFERS,
    SSL_SESS_CACHE_CLIENT,
    SSL_SESS_CACHE_NO_INTERNAL,
    SSL_SESS_CACHE_OFF,
    SSL_SESSION,
    SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
    SSL_VERIFY_NONE,
    SSL_VERIFY_PEER,
    TLS1_2_VERSION,
    TLS1_3_VERSION,
    X509,
    X509_CRL,
    X509_STORE,
    X509_STORE_CTX,
    X509_V_FLAG_CRL_CHECK,
    X509_V_FLAG_CRL_CHECK_ALL,
    X509_V_FLAG_PARTIAL_CHAIN,
    der,
    openssl,
    reason,
    reason_text,
)

from ..errors import TlsError

cdef enum:
    # No compression, no renegotiation (SSL_OP_NO_COMPRESSION, SSL_OP_NO_RENEGOTIATION).
    OPTIONS = (1 << 17) | (1 << 30)
    SECURITY_LEVEL = 2          # 112 bits: RSA from 2048, no SHA-1
    KEEP_SESSIONS = 256         # names of servers whose last ticket a context remembers

# Mozilla's "intermediate" without its three DHE suites: they serve no client of today and cost a server the
# most.
_CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
cdef bytes _GROUPS = b"X25519:P-256:P-384"
_VERSIONS = {"1.2": TLS1_2_VERSION, "1.3": TLS1_3_VERSION}
_MODES = {
    "off": SSL_VERIFY_NONE,
    "optional": SSL_VERIFY_PEER,
    "require": SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
}


cdef int _no_passphrase(char *into, int size, int is_writing, void *argument) noexcept:
    return -1


cdef int _shown(int is_fine, X509_STORE_CTX *ctx) noexcept:
    """Who shows a certificate gets no ticket: a resumed session would not see that it was revoked."""
    cdef void *ssl = openssl.X509_STORE_CTX_get_ex_data(ctx, openssl.SSL_get_ex_data_X509_STORE_CTX_idx())
    openssl.SSL_set_num_tickets(<SSL *>ssl, 0)
    return is_fine


cdef int _shown_to_any(int is_fine, X509_STORE_CTX *ctx) noexcept:
    # What is wrong with the certificate stays known; whoever asks for a verified one sees it.
    _shown(is_fine, ctx)
    return 1


cdef BIO *_reading(bytes data) except NULL:
    cdef BIO *bio = openssl.BIO_new_mem_buf(PyBytes_AS_STRING(data), <int>PyBytes_GET_SIZE(data))
    if bio == NULL:
        raise MemoryError
    return bio


cdef bint _is_over() except -1:
    """After a PEM reader found nothing: True when nothing more is there, False when it is broken."""
    cdef bint is_over = reason() == PEM_R_NO_START_LINE
    if is_over:
        openssl.ERR_clear_error()
    return is_over


cdef class Roots:
    """Certificates that a chain may end in. May be shared by contexts."""

    def __cinit__(self):
        self.store = openssl.X509_STORE_new()
        if self.store == NULL:
            raise MemoryError

    def __dealloc__(self):
        openssl.X509_STORE_free(self.store)

    def add_system(self, str path=""):
        """The roots that OpenSSL finds by itself (SSL_CERT_FILE, SSL_CERT_DIR), or those of a file."""
        cdef bytes file = path.encode()
        if path:
            done = openssl.X509_STORE_load_file(self.store, PyBytes_AS_STRING(file))
        else:
            done = openssl.X509_STORE_set_default_paths(self.store)
        if not done:
            raise TlsError(f"the system's roots cannot be read: {reason_text()}")

    def add(self, bytes pem, str option):
        """Every certificate of `pem`; each is trusted for itself, intermediates too. Returns how many."""
        cdef BIO *bio = _reading(pem)
        cdef X509 *found
        cdef int count = 0
        openssl.X509_STORE_set_flags(self.store, X509_V_FLAG_PARTIAL_CHAIN)
        try:
            while True:
                found = openssl.PEM_read_bio_X509(bio, NULL, _no_passphrase, NULL)
                if found == NULL:
                    break
                openssl.X509_STORE_add_cert(self.store, found)
                openssl.X509_free(found)
                count += 1
            if not _is_over():
                raise TlsError(f"certificate {count + 1} of the file is damaged: {reason_text()}", option)
        finally:
            openssl.BIO_free(bio)
        if not count:
            raise TlsError("no certificate is in it: PEM with BEGIN CERTIFICATE is expected", option)
        return count

    def add_revoked(self, bytes pem):
        """Every list of `pem`; from now on each authority of a chain needs one."""
        cdef BIO *bio = _reading(pem)
        cdef X509_CRL *found
        cdef int count = 0
        try:
            while True:
                found = openssl.PEM_read_bio_X509_CRL(bio, NULL, _no_passphrase, NULL)
                if found == NULL:
                    break
                openssl.X509_STORE_add_crl(self.store, found)
                openssl.X509_CRL_free(found)
                count += 1
            if not _is_over():
                raise TlsError(f"list {count + 1} of the file is damaged: {reason_text()}", "client_crl")
        finally:
            openssl.BIO_free(bio)
        if not count:
            raise TlsError("no revocation list is in it: PEM with BEGIN X509 CRL is expected", "client_crl")
        openssl.X509_STORE_set_flags(self.store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL)
        return count


cdef class Context:
    """One SSL_CTX. `is_server`: accepts connections, else it makes them."""

    def __cinit__(self, bint is_server):
        if is_server:
            self.ctx = openssl.SSL_CTX_new(openssl.TLS_server_method())
        else:
            self.ctx = openssl.SSL_CTX_new(openssl.TLS_client_method())
        if self.ctx == NULL:
            raise TlsError(f"OpenSSL gives no context: {reason_text()}")
        self.is_server = is_server

    def __init__(self, bint is_server):
        cdef long cache = SSL_SESS_CACHE_OFF
        if not is_server:
            cache = SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL
        self.leaves = []
        self.sessions = {}
        self.identity = b""
        self.protocols = ()
        openssl.SSL_CTX_set_options(self.ctx, OPTIONS)
        openssl.SSL_CTX_set_security_level(self.ctx, SECURITY_LEVEL)
        openssl.SSL_CTX_ctrl(
            self.ctx, SSL_CTRL_MODE, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS, NULL
        )
        openssl.SSL_CTX_ctrl(self.ctx, SSL_CTRL_SET_SESS_CACHE_MODE, cache, NULL)
        openssl.SSL_CTX_ctrl(self.ctx, SSL_CTRL_SET_GROUPS_LIST, 0, PyBytes_AS_STRING(_GROUPS))
        # Each costs a twentieth of a handshake, and a connection that was resumed brings the next.
        openssl.SSL_CTX_set_num_tickets(self.ctx, 1)
        self.set_min_version("1.2")
        self.set_ciphers(_CIPHERS)

    def __dealloc__(self):
        if self.ctx != NULL:
            openssl.SSL_CTX_free(self.ctx)

    def set_min_version(self, str version):
        """The oldest version that is spoken: "1.2" or "1.3"."""
        self.min_version = _VERSIONS[version]
        if not openssl.SSL_CTX_ctrl(self.ctx, SSL_CTRL_SET_MIN_PROTO_VERSION, self.min_version, NULL):
            raise TlsError(f"OpenSSL does not allow TLS {version}: {reason_text()}", "min_version")

    def set_ciphers(self, str names):
        """The suites of TLS 1.2, by OpenSSL's names with colons between; those of TLS 1.3 are fixed."""
        cdef bytes text = names.encode()
        if not openssl.SSL_CTX_set_cipher_list(self.ctx, PyBytes_AS_STRING(text)):
            openssl.ERR_clear_error()
            if "TLS_" in names:
                raise TlsError(f"{names} is of TLS 1.3, whose cipher suites are fixed: remove it", "ciphers")
            raise TlsError(f"OpenSSL knows or allows no cipher suite of {names}", "ciphers")

    def set_timeout(self, long seconds):
        """How long a session may be resumed."""
        openssl.SSL_CTX_set_timeout(self.ctx, seconds)

    def set_identity(self, bytes identity):
        """At most 32 bytes that a session must have been made under to be resumed."""
        self.identity = identity
        openssl.SSL_CTX_set_session_id_context(
            self.ctx,
            <const unsigned char *>PyBytes_AS_STRING(identity),
            <unsigned int>PyBytes_GET_SIZE(identity),
        )

    def offer(self, tuple protocols):
        """Towards a server: what ALPN offers, best first."""
        cdef bytes wire = b"".join(bytes((len(one),)) + one for one in protocols)
        self.protocols = protocols
        # The one function of the library that returns 0 for success.
        if openssl.SSL_CTX_set_alpn_protos(
            self.ctx, <const unsigned char *>PyBytes_AS_STRING(wire), <unsigned int>PyBytes_GET_SIZE(wire)
        ):
            raise MemoryError

    def verify(self, str mode, Roots roots=None):
        """What the peer's certificate must be: "off", "optional" (asked for, whatever it is) or "require"."""
        self.verify_mode = _MODES[mode]
        self.verify_callback = NULL
        if self.is_server:
            self.verify_callback = _shown_to_any if mode == "optional" else _shown
        openssl.SSL_CTX_set_verify(self.ctx, self.verify_mode, self.verify_callback)
        if roots is not None:
            openssl.X509_STORE_up_ref(roots.store)
            openssl.SSL_CTX_set_cert_store(self.ctx, roots.store)

    def name_authorities(self, bytes pem):
        """Tell clients the names of the authorities in `pem`: they choose a certificate by them."""
        cdef BIO *bio = _reading(pem)
        cdef X509 *found
        try:
            while True:
                found = openssl.PEM_read_bio_X509(bio, NULL, _no_passphrase, NULL)
                if found == NULL:
                    break
                openssl.SSL_CTX_add_client_CA(self.ctx, found)
                openssl.X509_free(found)
            openssl.ERR_clear_error()
        finally:
            openssl.BIO_free(bio)

    def add_pair(self, bytes certificate, bytes key, int number=0):
        """A chain, leaf first, and the leaf's key, both PEM. Another one of another key type may follow."""
        cdef OPENSSL_STACK *chain = openssl.OPENSSL_sk_new_null()
        cdef EVP_PKEY *private = NULL
        cdef X509 *leaf
        if chain == NULL:
            raise MemoryError
        try:
            _read_chain(certificate, chain, number)
            private = _read_key(key, number)
            leaf = <X509 *>openssl.OPENSSL_sk_value(chain, 0)
            self._use(chain, leaf, private, number)
            self.leaves.append(der(leaf))
        finally:
            openssl.EVP_PKEY_free(private)
            _free_chain(chain)

    cdef int _use(self, OPENSSL_STACK *chain, X509 *leaf, EVP_PKEY *private, int number) except -1:
        cdef OPENSSL_STACK *rest
        cdef int i, done
        if not openssl.X509_check_private_key(leaf, private):
            openssl.ERR_clear_error()
            for i in range(1, openssl.OPENSSL_sk_num(chain)):
                if openssl.X509_check_private_key(<X509 *>openssl.OPENSSL_sk_value(chain, i), private):
                    raise TlsError(
                        f"the key belongs to certificate {i + 1} of the file: that one must come first",
                        "certificate",
                        number,
                    )
                openssl.ERR_clear_error()
            raise TlsError("the key does not belong to the certificate", "key", number)
        rest = openssl.OPENSSL_sk_new_null()
        if rest == NULL:
            raise MemoryError
        for i in range(1, openssl.OPENSSL_sk_num(chain)):
            openssl.OPENSSL_sk_push(rest, openssl.OPENSSL_sk_value(chain, i))
        # Takes references of its own, the stack excepted.
        done = openssl.SSL_CTX_use_cert_and_key(self.ctx, leaf, private, rest, 1)
        openssl.OPENSSL_sk_free(rest)
        if not done:
            raise TlsError(f"OpenSSL refuses the certificate: {reason_text()}", "certificate", number)
        return 0

    cdef SSL_SESSION *_session(self, str name) except? NULL:
        """What a connection to `name` may resume, NULL for nothing; whoever takes it frees it."""
        cdef bytes data = self.sessions.get(name)
        cdef const unsigned char *at
        cdef SSL_SESSION *session
        if data is None:
            return NULL
        at = <const unsigned char *>PyBytes_AS_STRING(data)
        session = openssl.d2i_SSL_SESSION(NULL, &at, PyBytes_GET_SIZE(data))
        if session == NULL:
            openssl.ERR_clear_error()
        return session

    cdef int _remember(self, str name, SSL_SESSION *session) except -1:
        # As bytes: the library marks a session that was resumed, and what comes out of it, as used up.
        cdef int size = openssl.i2d_SSL_SESSION(session, NULL)
        cdef unsigned char *at
        cdef bytes data
        if size <= 0:
            return 0
        data = PyBytes_FromStringAndSize(NULL, size)
        at = <unsigned char *>PyBytes_AS_STRING(data)
        openssl.i2d_SSL_SESSION(session, &at)
        self.sessions.pop(name, None)
        if len(self.sessions) >= KEEP_SESSIONS:
            del self.sessions[next(iter(self.sessions))]
        self.sessions[name] = data
        return 0


cdef int _read_chain(bytes pem, OPENSSL_STACK *chain, int number) except -1:
    cdef BIO *bio = _reading(pem)
    cdef X509 *found
    try:
        while True:
            found = openssl.PEM_read_bio_X509(bio, NULL, _no_passphrase, NULL)
            if found == NULL:
                break
            if not openssl.OPENSSL_sk_push(chain, found):
                openssl.X509_free(found)
                raise MemoryError
        count = openssl.OPENSSL_sk_num(chain)
        if not _is_over():
            text = f"certificate {count + 1} of the file is damaged: {reason_text()}"
            raise TlsError(text, "certificate", number)
    finally:
        openssl.BIO_free(bio)
    if not count:
        text = "no certificate is in it: PEM with BEGIN CERTIFICATE is expected"
        raise TlsError(text, "certificate", number)
    return 0


cdef EVP_PKEY *_read_key(bytes pem, int number) except NULL:
    cdef BIO *bio
    cdef EVP_PKEY *found
    if b"ENCRYPTED" in pem:
        raise TlsError("the key is encrypted: it must be stored without a passphrase", "key", number)
    bio = _reading(pem)
    found = openssl.PEM_read_bio_PrivateKey(bio, NULL, _no_passphrase, NULL)
    openssl.BIO_free(bio)
    if found == NULL:
        if b"PRIVATE KEY-----" not in pem:
            openssl.ERR_clear_error()
            raise TlsError("no key is in it: PEM with BEGIN PRIVATE KEY is expected", "key", number)
        raise TlsError(f"the key is damaged: {reason_text()}", "key", number)
    return found


cdef void _free_chain(OPENSSL_STACK *chain) noexcept:
    cdef int i
    for i in range(openssl.OPENSSL_sk_num(chain)):
        openssl.X509_free(<X509 *>openssl.OPENSSL_sk_value(chain, i))
    openssl.OPENSSL_sk_free(chain)
