# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""A channel over TLS: on the socket is ciphertext, all else is as with any channel.

Laws. OpenSSL never sees the socket: it reads from and writes to two buffers of ours, so the system calls are
those of a plain channel, one for what one call needs. An end without close_notify is a break, never an end.
Ciphertext is made once: what the socket did not take waits here and the bytes count as taken only when it
left. Longer than other files because the channel and the functions that OpenSSL calls for it share one
layout.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcpy, memmove

from .channel cimport HUP, LARGE, READ, SMALL, WRITE, Channel, borrow, give_back, iovec, wait
from .openssl cimport (
    BIO,
    BIO_CTRL_EOF,
    BIO_CTRL_FLUSH,
    BIO_CTRL_PENDING,
    BIO_CTRL_WPENDING,
    BIO_FLAGS_READ,
    BIO_FLAGS_RETRY,
    BIO_FLAGS_SHOULD_RETRY,
    BIO_FLAGS_WRITE,
    BIO_METHOD,
    BIO_TYPE_SOURCE_SINK,
    EVP_CIPHER_CTX,
    EVP_MAC_CTX,
    OPENSSL_STACK,
    OSSL_PARAM,
    SSL,
    SSL_AD_DECODE_ERROR,
    SSL_AD_INTERNAL_ERROR,
    SSL_AD_REASON_OFFSET,
    SSL_CIPHER,
    SSL_CLIENT_HELLO_ERROR,
    SSL_CLIENT_HELLO_SUCCESS,
    SSL_CTRL_SET_MIN_PROTO_VERSION,
    SSL_CTRL_SET_TLSEXT_HOSTNAME,
    SSL_ERROR_WANT_READ,
    SSL_ERROR_WANT_WRITE,
    SSL_ERROR_ZERO_RETURN,
    SSL_RECEIVED_SHUTDOWN,
    SSL_R_CERTIFICATE_VERIFY_FAILED,
    SSL_SENT_SHUTDOWN,
    SSL_SESSION,
    SSL_TLSEXT_ERR_ALERT_FATAL,
    SSL_TLSEXT_ERR_NOACK,
    SSL_TLSEXT_ERR_OK,
    TLS1_3_VERSION,
    TLSEXT_TYPE_SERVER_NAME,
    X509,
    X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS,
    X509_V_ERR_HOSTNAME_MISMATCH,
    X509_V_ERR_IP_ADDRESS_MISMATCH,
    der,
    openssl,
    reason,
    reason_text,
)
from .tls_context cimport Context
from .turns cimport now

from ..errors import Failure, TlsError

cdef extern from "sys/socket.h" nogil:
    int SHUT_WR
    int shutdown(int fd, int how)

cdef extern from "sys/epoll.h" nogil:
    unsigned int EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLHUP, EPOLLERR

cdef enum:
    RECORD = 16384          # plain bytes of one record, at most
    TAKE = 131072           # plain bytes that one call of _sendv encrypts, at most
    OVERHEAD = 64           # what a record adds, at most
    MESSAGES = 64           # handshake messages a peer may send unasked, and one more for each MiB
    HANDSHAKE = 22          # the content type of handshake messages

cdef enum:
    FULL = 0                # the socket takes no more
    SENT = 1
    BROKEN = -2

cdef unsigned char _scratch[RECORD]


# -- what OpenSSL calls to receive and send

cdef int _bio_read(BIO *bio, char *into, size_t size, size_t *count) noexcept:
    cdef TlsChannel channel = <TlsChannel>openssl.BIO_get_data(bio)
    cdef Bytes *raw = &channel.raw
    cdef size_t available
    openssl.BIO_clear_flags(bio, BIO_FLAGS_RETRY)
    count[0] = 0
    if channel.messages > MESSAGES + (channel.received >> 20):
        return 0
    if raw.start == raw.stop and channel._pull() <= 0:
        if not channel.wire_ended:
            openssl.BIO_set_flags(bio, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY)
        return 0
    available = <size_t>(raw.stop - raw.start)
    if size > available:
        size = available
    memcpy(into, raw.data + raw.start, size)
    raw.start += <Py_ssize_t>size
    count[0] = size
    return 1


cdef int _bio_write(BIO *bio, const char *data, size_t size, size_t *count) noexcept:
    cdef TlsChannel channel = <TlsChannel>openssl.BIO_get_data(bio)
    cdef Bytes *out = &channel.out
    cdef size_t room
    openssl.BIO_clear_flags(bio, BIO_FLAGS_RETRY)
    count[0] = 0
    try:
        channel._room(<Py_ssize_t>size)
    except MemoryError:
        return 0
    room = <size_t>(out.size - out.stop)
    if room == 0:
        openssl.BIO_set_flags(bio, BIO_FLAGS_WRITE | BIO_FLAGS_SHOULD_RETRY)
        return 0
    if size > room:
        size = room
    memcpy(out.data + out.stop, data, size)
    out.stop += <Py_ssize_t>size
    count[0] = size
    return 1


cdef long _bio_ctrl(BIO *bio, int command, long number, void *data) noexcept:
    cdef TlsChannel channel
    if command == BIO_CTRL_FLUSH:
        return 1
    if command == BIO_CTRL_EOF or command == BIO_CTRL_PENDING or command == BIO_CTRL_WPENDING:
        channel = <TlsChannel>openssl.BIO_get_data(bio)
        if command == BIO_CTRL_EOF:
            return channel.wire_ended and channel.raw.start == channel.raw.stop
        if command == BIO_CTRL_PENDING:
            return channel.raw.stop - channel.raw.start
        return channel.out.stop - channel.out.start
    return 0


cdef BIO_METHOD *_bio_method() except NULL:
    cdef BIO_METHOD *method = openssl.BIO_meth_new(
        openssl.BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, b"channel"
    )
    if method == NULL:
        raise MemoryError
    openssl.BIO_meth_set_read_ex(method, _bio_read)
    openssl.BIO_meth_set_write_ex(method, _bio_write)
    openssl.BIO_meth_set_ctrl(method, _bio_ctrl)
    return method


cdef BIO_METHOD *_method = _bio_method()


# -- what OpenSSL calls while it handshakes

cdef void _on_message(int is_written, int version, int content, const void *data, size_t size,
                      SSL *ssl, void *argument) noexcept:
    cdef TlsChannel channel
    if content == HANDSHAKE and not is_written:
        channel = <TlsChannel>openssl.SSL_get_ex_data(ssl, 0)
        if channel.is_established:
            channel.messages += 1


cdef str _server_name(SSL *ssl):
    """The host name of a ClientHello in lower case; "" for none, None for an extension that is broken."""
    cdef const unsigned char *data
    cdef size_t size, length
    if not openssl.SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_SERVER_NAME, &data, &size):
        return ""
    # A list (two bytes of length) of one name: its type (0: a host), two bytes of length.
    if size < 5 or <size_t>(data[0] << 8 | data[1]) != size - 2 or data[2] != 0:
        return None
    length = <size_t>(data[3] << 8 | data[4])
    if length == 0 or length > 255 or length != size - 5:
        return None
    name = (<bytes>data[5:5 + length]).lower()
    # Whatever is no host name is nobody's certificate: the default one answers.
    return name.decode() if not name.translate(None, _HOST) else ""


_HOST = b"abcdefghijklmnopqrstuvwxyz0123456789-._"


cdef int _on_hello(SSL *ssl, int *alert, void *argument) noexcept:
    cdef TlsChannel channel = <TlsChannel>openssl.SSL_get_ex_data(ssl, 0)
    cdef Context chosen
    if channel.chosen is not channel.context:
        # The second hello, after the client was asked for a key of another group.
        return SSL_CLIENT_HELLO_SUCCESS
    try:
        name = _server_name(ssl)
        if name is None:
            alert[0] = SSL_AD_DECODE_ERROR
            return SSL_CLIENT_HELLO_ERROR
        channel.sni = name
        chosen = <Context?>channel.context.choose(name)
    except Exception as error:
        channel.trouble = f"no certificate could be chosen: {error!r}"
        alert[0] = SSL_AD_INTERNAL_ERROR
        return SSL_CLIENT_HELLO_ERROR
    channel.chosen = chosen
    openssl.SSL_set_SSL_CTX(ssl, chosen.ctx)
    # What a connection took over from the listener's context when it began does not change with the context.
    openssl.SSL_set_verify(ssl, chosen.verify_mode, chosen.verify_callback)
    openssl.SSL_ctrl(ssl, SSL_CTRL_SET_MIN_PROTO_VERSION, chosen.min_version, NULL)
    openssl.SSL_set_session_id_context(
        ssl, <const unsigned char *>PyBytes_AS_STRING(chosen.identity),
        <unsigned int>PyBytes_GET_SIZE(chosen.identity),
    )
    return SSL_CLIENT_HELLO_SUCCESS


cdef int _on_alpn(SSL *ssl, const unsigned char **chosen, unsigned char *chosen_size,
                  const unsigned char *offer, unsigned int offer_size, void *argument) noexcept:
    cdef TlsChannel channel = <TlsChannel>openssl.SSL_get_ex_data(ssl, 0)
    cdef unsigned int at, size
    cdef bytes protocol
    if not channel.context.protocols:
        # Nobody here knows what is spoken inside: the client finds out by itself.
        return SSL_TLSEXT_ERR_NOACK
    for protocol in channel.context.protocols:
        at = 0
        while at < offer_size:
            size = offer[at]
            if size + at >= offer_size:
                break
            if size == <unsigned int>PyBytes_GET_SIZE(protocol) and offer[at + 1:at + 1 + size] == protocol:
                chosen[0] = offer + at + 1
                chosen_size[0] = <unsigned char>size
                return SSL_TLSEXT_ERR_OK
            at += size + 1
    return SSL_TLSEXT_ERR_ALERT_FATAL


cdef int _on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                    EVP_MAC_CTX *mac, int is_sealing) noexcept:
    """1: go on, 2: go on and give a new ticket, 0: the ticket is nobody's, -1: cannot."""
    cdef TlsChannel channel = <TlsChannel>openssl.SSL_get_ex_data(ssl, 0)
    try:
        tickets = channel.chosen.tickets
        if is_sealing:
            if openssl.SSL_get0_peer_certificate(ssl) != NULL:
                # TLS 1.2 announced a ticket before it saw the client's certificate: now it is an empty one.
                return 0
            label, key, secret = tickets.newest()
            memcpy(name, PyBytes_AS_STRING(label), 16)
            memcpy(iv, PyBytes_AS_STRING(tickets.random(16)), 16)
            return 1 if _keyed(cipher, mac, key, secret, iv, True) else -1
        found = tickets.find(<bytes>name[:16])
        if found is None:
            return 0
        key, secret, is_newest = found
        if not _keyed(cipher, mac, key, secret, iv, False):
            return -1
        return 1 if is_newest else 2
    except Exception as error:
        channel.trouble = f"no session ticket: {error!r}"
        return -1


cdef bint _keyed(EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, bytes key, bytes secret,
                 const unsigned char *iv, bint is_sealing) noexcept:
    cdef OSSL_PARAM parameters[3]
    cdef const unsigned char *aes = <const unsigned char *>PyBytes_AS_STRING(key)
    parameters[0] = openssl.OSSL_PARAM_construct_octet_string(b"key", PyBytes_AS_STRING(secret), 32)
    parameters[1] = openssl.OSSL_PARAM_construct_utf8_string(b"digest", b"SHA256", 0)
    parameters[2] = openssl.OSSL_PARAM_construct_end()
    if not openssl.EVP_MAC_CTX_set_params(mac, parameters):
        return False
    if is_sealing:
        return openssl.EVP_EncryptInit_ex(cipher, openssl.EVP_aes_256_cbc(), NULL, aes, iv)
    return openssl.EVP_DecryptInit_ex(cipher, openssl.EVP_aes_256_cbc(), NULL, aes, iv)


cdef int _on_session(SSL *ssl, SSL_SESSION *session) noexcept:
    """Towards a server: a ticket came. 0: the library keeps the session, what it is was noted."""
    cdef TlsChannel channel = <TlsChannel>openssl.SSL_get_ex_data(ssl, 0)
    try:
        channel.context._remember(channel.sni, session)
    except MemoryError:
        pass
    return 0


def attend(Context context):
    """Let `context` be used by channels: OpenSSL calls the functions above for its connections."""
    openssl.SSL_CTX_set_msg_callback(context.ctx, _on_message)
    if context.is_server:
        openssl.SSL_CTX_set_client_hello_cb(context.ctx, _on_hello, NULL)
        openssl.SSL_CTX_set_alpn_select_cb(context.ctx, _on_alpn, NULL)
        openssl.SSL_CTX_set_tlsext_ticket_key_evp_cb(context.ctx, _on_ticket)
    else:
        openssl.SSL_CTX_sess_set_new_cb(context.ctx, _on_session)


def first_byte(Channel channel, double timeout):
    """Wait for what a client sends first: (the byte or -1, seconds left of `timeout`). Raises Broken."""
    cdef double until = now() + timeout
    if not channel.fill(1, timeout):
        return -1, 0.0
    return channel.buffer[channel.start], max(until - now(), 0.001) if timeout else 0.0


def accept(Channel channel, Context context):
    """A channel over TLS that takes the place of `channel`, whose descriptor and pending bytes it takes."""
    cdef TlsChannel secure = _over(channel, context)
    openssl.SSL_set_accept_state(secure.ssl)
    return secure


def connect(Channel channel, Context context, str name, bint is_address=False, bint is_verified=True):
    """The same towards a server. `name`: what its certificate must be for, and what SNI says of a host."""
    cdef TlsChannel secure = _over(channel, context)
    cdef SSL_SESSION *session
    cdef bytes text = name.encode("ascii")
    cdef bint is_fine = True
    secure.sni = name
    openssl.SSL_set_connect_state(secure.ssl)
    if name and not is_address:
        is_fine = openssl.SSL_ctrl(secure.ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, 0, PyBytes_AS_STRING(text)) == 1
    if is_fine and is_verified and name:
        if is_address:
            is_fine = openssl.X509_VERIFY_PARAM_set1_ip_asc(
                openssl.SSL_get0_param(secure.ssl), PyBytes_AS_STRING(text)
            )
        else:
            openssl.SSL_set_hostflags(secure.ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS)
            is_fine = openssl.SSL_set1_host(secure.ssl, PyBytes_AS_STRING(text))
    if not is_fine:
        text_of_error = reason_text()
        secure.close()
        raise TlsError(f"{name} cannot be the name of a server: {text_of_error}")
    session = context._session(name)
    if session != NULL:
        openssl.SSL_set_session(secure.ssl, session)
        openssl.SSL_SESSION_free(session)
    return secure


cdef TlsChannel _over(Channel channel, Context context):
    cdef TlsChannel secure
    cdef SSL *ssl
    cdef BIO *bio
    if channel.fd < 0:
        raise RuntimeError("the channel is closed")
    ssl = openssl.SSL_new(context.ctx)
    bio = openssl.BIO_new(_method)
    if ssl == NULL or bio == NULL:
        openssl.SSL_free(ssl)
        openssl.BIO_free(bio)
        openssl.ERR_clear_error()
        raise MemoryError
    # From here on nothing fails, so that the descriptor always has one owner.
    secure = TlsChannel(-1)
    secure.ssl = ssl
    secure.context = secure.chosen = context
    openssl.BIO_set_data(bio, <void *>secure)
    openssl.BIO_set_init(bio, 1)
    openssl.SSL_set_bio(ssl, bio, bio)
    openssl.SSL_set_ex_data(ssl, 0, <void *>secure)
    secure.ready = channel.ready
    secure.wire_ready = channel.ready & READ
    secure.raw.data = channel.buffer
    secure.raw.start = channel.start
    secure.raw.stop = channel.stop
    secure.raw.size = channel.size
    channel.buffer = NULL
    channel.start = channel.stop = channel.size = 0
    secure.fd = channel._detach()
    secure._mark()
    return secure


cdef class TlsChannel(Channel):
    """Made by `accept` and `connect`; `handshake` comes before all else."""

    def __cinit__(self, int fd, bint readable=False):
        self.sni = ""
        self.trouble = ""

    def __dealloc__(self):
        self._free()

    cdef void _free(self) noexcept:
        if self.ssl != NULL:
            # An end without close_notify must not take the session with it: it is good for others.
            openssl.SSL_set_shutdown(self.ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN)
            openssl.SSL_free(self.ssl)
            self.ssl = NULL
        if self.raw.data != NULL:
            give_back(self.raw.data, self.raw.size)
            self.raw = Bytes(NULL, 0, 0, 0)
        if self.out.data != NULL:
            give_back(self.out.data, self.out.size)
            self.out = Bytes(NULL, 0, 0, 0)

    # -- the handshake

    def handshake(self, double timeout):
        """Handshake, `timeout` seconds for all of it (0: no bound). Raises Failure, the channel closed.

        From a client: tls_handshake_failed. Towards a server: tls_verify, tls_alert, tls_failed, tls_timeout.
        """
        cdef double begun = now()
        try:
            while not self._advance(begun + timeout if timeout else 0):
                pass
        except BaseException:
            self.close()
            raise
        self.handshake_seconds = now() - begun

    cdef int _advance(self, double until) except -1:
        """One step of the handshake and the wait behind it: 1 when it is over."""
        cdef int result, sent, want = 0
        cdef double left
        if self.fd < 0:
            raise self._failure("closed", 0)
        if not self.is_established:
            if openssl.ERR_peek_error():
                openssl.ERR_clear_error()
            self.is_busy = True
            result = openssl.SSL_do_handshake(self.ssl)
            self.is_busy = False
            if self.fd < 0:
                self._free()
                raise self._failure("closed", 0)
            if result == 1:
                self.is_established = True
            elif self._stopped(result) != -1:
                result = self.reason
                trouble = self.trouble or "the peer closed it"
                # The alert that says why.
                self._flush()
                raise self._failure(trouble, result)
            self._mark()
        if self.is_established and self.context.is_server and openssl.SSL_version(self.ssl) >= TLS1_3_VERSION:
            # What is left are tickets: they leave with the first answer, or before the first wait.
            if self.out.stop > self.out.start:
                self.ready |= READ
            return 1
        sent = self._flush()
        if sent == BROKEN:
            raise self._failure("the connection ended", 0)
        if sent == FULL:
            want = WRITE
        elif self.is_established:
            return 1
        elif not self.ready & READ:
            want = READ
        if want:
            left = until - now() if until else 0
            if until and left <= 0 or not wait(self, want, None, 0, left):
                raise self._late()
        return 0

    def _failure(self, str detail, int why):
        """The Failure that a handshake ends with."""
        cdef long result
        if self.context.is_server:
            if why == SSL_R_CERTIFICATE_VERIFY_FAILED:
                detail = f"{detail}: {self.verify_error}"
            return Failure("tls_handshake_failed", detail)
        if self.ssl != NULL and why == SSL_R_CERTIFICATE_VERIFY_FAILED:
            result = openssl.SSL_get_verify_result(self.ssl)
            detail = openssl.X509_verify_cert_error_string(result).decode()
            if result == X509_V_ERR_HOSTNAME_MISMATCH or result == X509_V_ERR_IP_ADDRESS_MISMATCH:
                detail = f"{detail}: the certificate is not for {self.sni}"
            return Failure("tls_verify", detail, repeatable=True)
        if why > SSL_AD_REASON_OFFSET:
            return Failure("tls_alert", detail, repeatable=True)
        return Failure("tls_failed", detail, repeatable=True)

    def _late(self):
        if self.context.is_server:
            return Failure("tls_handshake_failed", "not finished in time")
        return Failure("tls_timeout", "the handshake was not finished in time", repeatable=True)

    # -- ciphertext in and out

    cdef int _pull(self) noexcept:
        """Receive ciphertext: 1, 0 when there is none now, -1 when the socket has ended or is broken."""
        cdef Py_ssize_t count
        cdef long long received = self.received
        if self.wire_ended:
            return -1
        if not self.wire_ready or self.fd < 0:
            return 0
        if self.raw.data == NULL:
            try:
                self.raw.data = borrow(SMALL)
            except MemoryError:
                self.wire_ended = True
                return -1
            self.raw.size = SMALL
        self.raw.start = self.raw.stop = 0
        self.ready |= READ
        count = Channel._recv(self, self.raw.data, self.raw.size)
        self.received = received
        self.wire_ready = self.ready & READ
        if count > 0:
            self.raw.stop = count
            return 1
        if count == -1:
            return 0
        self.wire_ended = True
        return -1

    cdef int _room(self, Py_ssize_t size) except -1:
        """Make room for `size` more bytes behind what waits to be sent, as far as a large buffer has it."""
        cdef Bytes *out = &self.out
        cdef unsigned char *bigger
        cdef Py_ssize_t pending = out.stop - out.start
        if out.data == NULL:
            out.size = SMALL if size <= SMALL else LARGE
            out.data = borrow(out.size)
            out.start = out.stop = 0
        if out.size - out.stop >= size:
            return 0
        if out.size == LARGE:
            memmove(out.data, out.data + out.start, pending)
        else:
            bigger = borrow(LARGE)
            memcpy(bigger, out.data + out.start, pending)
            give_back(out.data, out.size)
            out.data = bigger
            out.size = LARGE
        out.start = 0
        out.stop = pending
        return 0

    cdef int _flush(self) noexcept:
        """Send the ciphertext that waits: SENT, FULL or BROKEN."""
        cdef Bytes *out = &self.out
        cdef iovec piece
        cdef Py_ssize_t count, step
        cdef long long sent = self.sent
        while out.start < out.stop:
            piece.iov_base = out.data + out.start
            piece.iov_len = out.stop - out.start
            count = Channel._sendv(self, &piece, 1)
            self.sent = sent
            if count == -1:
                return FULL
            if count < 0:
                self.is_broken = self.is_quiet = True
                self.ready |= READ
                return BROKEN
            out.start += count
            # Whoever watches whether bytes move sees it before the last of them has left.
            step = min(count, self.owed - self.told)
            self.told += step
            self.sent = sent = sent + step
        if out.data != NULL:
            give_back(out.data, out.size)
            out[0] = Bytes(NULL, 0, 0, 0)
        if self.ends_soon:
            self.ends_soon = False
            shutdown(self.fd, SHUT_WR)
        return SENT

    cdef void _mark(self) noexcept:
        """Set READ to what it means here: something may be had without waiting for the socket."""
        if self.raw.start == self.raw.stop:
            if self.raw.data != NULL:
                give_back(self.raw.data, self.raw.size)
                self.raw = Bytes(NULL, 0, 0, 0)
            if not (self.wire_ready or self.is_ended or self.is_broken or openssl.SSL_pending(self.ssl)):
                self.ready &= ~READ
                return
        self.ready |= READ

    cdef int _stopped(self, int result) noexcept:
        """What a call of OpenSSL that did not succeed means: 0: ended, -1: not now, -2: broken."""
        cdef int error = openssl.SSL_get_error(self.ssl, result)
        if error == SSL_ERROR_WANT_READ or error == SSL_ERROR_WANT_WRITE and not self.is_established:
            return -1
        if error == SSL_ERROR_ZERO_RETURN:
            self.is_ended = True
            self.ready |= HUP
            return 0
        self.is_broken = self.is_quiet = True
        self.reason = reason()
        try:
            if self.messages > MESSAGES + (self.received >> 20):
                self.trouble = "too many messages behind the handshake"
                openssl.ERR_clear_error()
            elif self.wire_ended and self.raw.start == self.raw.stop:
                self.reason = 0
                self.trouble = "the connection ended without close_notify" if self.is_established else (
                    "the connection ended in the handshake")
                openssl.ERR_clear_error()
            elif self.trouble:
                openssl.ERR_clear_error()
            else:
                self.trouble = reason_text()
        except MemoryError:
            openssl.ERR_clear_error()
        return -2

    # -- bytes in and out

    cdef int _event(self, unsigned int mask) except -1:
        if mask & EPOLLOUT:
            self.ready |= WRITE
            if self.ends_soon:
                self._flush()
        if mask & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR):
            self.wire_ready = True
            if self.parked is not None and self.waiter is None:
                # A ticket that comes while a connection rests is nothing to wake anybody for.
                self.ready |= READ
                if not self._has_news():
                    return 0
        return Channel._event(self, mask)

    cdef bint _has_news(self) noexcept:
        cdef unsigned char byte
        cdef int result
        if self.stop > self.start or self.is_ended or self.is_broken:
            return True
        if not self.ready & READ or self.ssl == NULL:
            return bool(self.ready & READ)
        if openssl.ERR_peek_error():
            openssl.ERR_clear_error()
        # Whoever set READ wants the socket to be asked.
        self.wire_ready = True
        result = openssl.SSL_peek(self.ssl, &byte, 1)
        if result <= 0:
            result = self._stopped(result)
        if self.out.stop > self.out.start and not self.owed:
            self._flush()
        self._mark()
        return result != -1

    cdef Py_ssize_t _recv(self, unsigned char *into, Py_ssize_t size) noexcept:
        cdef Py_ssize_t total = 0
        cdef int count
        if self.is_ended:
            return 0
        if self.is_broken or self.ssl == NULL:
            return -2
        if openssl.ERR_peek_error():
            openssl.ERR_clear_error()
        if self.raw.data == NULL and size >= LARGE:
            try:
                self.raw.data = borrow(LARGE)
                self.raw.size = LARGE
            except MemoryError:
                pass
        while total < size:
            count = openssl.SSL_read(self.ssl, into + total, <int>min(size - total, 0x40000000))
            if count <= 0:
                count = self._stopped(count)
                break
            total += count
            if self.raw.start == self.raw.stop and not self.wire_ready and not openssl.SSL_pending(self.ssl):
                break
        self.received += total
        self._mark()
        if total:
            return total
        if self.out.stop > self.out.start and not self.owed:
            self._flush()
        return count

    cdef Py_ssize_t _sendv(self, iovec *pieces, int count) noexcept:
        cdef Py_ssize_t taken
        cdef int state
        if self.is_broken or self.is_finished or self.ssl == NULL:
            return -2
        if self.owed or self.out.stop - self.out.start > SMALL:
            state = self._flush()
            if state != SENT:
                return -1 if state == FULL else -2
            if self.owed:
                return self._settle()
        taken = self._encrypt(pieces, count)
        if taken <= 0:
            return taken
        self.owed = taken
        self.told = 0
        state = self._flush()
        if state == SENT:
            return self._settle()
        return -1 if state == FULL else -2

    cdef Py_ssize_t _settle(self) noexcept:
        """All of the ciphertext has left: report what it was made of."""
        cdef Py_ssize_t taken = self.owed
        self.sent += taken - self.told
        self.owed = self.told = 0
        return taken

    cdef Py_ssize_t _encrypt(self, iovec *pieces, int count) noexcept:
        """Make ciphertext of as much as one call takes: how many bytes, or -2."""
        cdef Py_ssize_t size = 0, taken = 0, part, filled
        cdef size_t at = 0
        cdef int i
        for i in range(count):
            size += <Py_ssize_t>pieces[i].iov_len
        if size > TAKE:
            size = TAKE
        try:
            self._room(size + (size // RECORD + count + 1) * OVERHEAD)
        except MemoryError:
            return -2
        i = 0
        while taken < size:
            part = min(<Py_ssize_t>(pieces[i].iov_len - at), size - taken)
            if part >= RECORD or part == size - taken:
                # Whole records straight from where they are.
                if part > RECORD and part < size - taken:
                    part -= part % RECORD
                if self._write(<char *>pieces[i].iov_base + at, part):
                    return -2
                taken += part
                at += part
            else:
                filled = 0
                while filled < RECORD and taken < size:
                    part = min(<Py_ssize_t>(pieces[i].iov_len - at), RECORD - filled, size - taken)
                    memcpy(_scratch + filled, <char *>pieces[i].iov_base + at, part)
                    filled += part
                    taken += part
                    at += part
                    if at == pieces[i].iov_len and i + 1 < count:
                        i += 1
                        at = 0
                if self._write(_scratch, filled):
                    return -2
            if at == pieces[i].iov_len and i + 1 < count:
                i += 1
                at = 0
        return taken

    cdef int _write(self, const void *data, Py_ssize_t size) noexcept:
        cdef int result = openssl.SSL_write(self.ssl, data, <int>size)
        if result == size:
            return 0
        self._stopped(result)
        self.is_broken = self.is_quiet = True
        return -2

    # -- the end

    cdef int _goodbye(self) noexcept:
        """Make a close_notify and send it as far as the socket takes it."""
        if self.ssl == NULL or not self.is_established or self.is_quiet or self.is_finished:
            return BROKEN
        self.is_finished = True
        if openssl.ERR_peek_error():
            openssl.ERR_clear_error()
        if openssl.SSL_shutdown(self.ssl) < 0:
            openssl.ERR_clear_error()
        return self._flush()

    def shutdown_write(self):
        """Tell the peer that nothing more comes: close_notify, then the end of the socket's sending side."""
        if self.fd < 0 or self.is_finished:
            return
        self.ends_soon = True
        if self._goodbye() == BROKEN:
            Channel.shutdown_write(self)

    def abort(self):
        """End with a reset: the peer must not take what it got for complete."""
        self.is_quiet = True
        Channel.abort(self)

    def close(self):
        """Say goodbye as far as that needs no wait, and give everything back."""
        if self.fd < 0:
            return
        self._goodbye()
        Channel.close(self)
        self.is_broken = True
        if not self.is_busy:
            self._free()

    # -- what is known of the connection

    @property
    def version(self):
        """Like "TLSv1.3"; "" once closed."""
        return "" if self.ssl == NULL else openssl.SSL_get_version(self.ssl).decode()

    @property
    def cipher(self):
        """The suite, like "TLS_AES_128_GCM_SHA256"."""
        cdef const SSL_CIPHER *cipher = NULL
        if self.ssl != NULL:
            cipher = openssl.SSL_get_current_cipher(self.ssl)
        return "" if cipher == NULL else openssl.SSL_CIPHER_get_name(cipher).decode()

    @property
    def alpn(self):
        """The protocol that was agreed on, like b"h2"; b"" for none."""
        cdef const unsigned char *data = NULL
        cdef unsigned int size = 0
        if self.ssl != NULL:
            openssl.SSL_get0_alpn_selected(self.ssl, &data, &size)
        return <bytes>data[:size] if size else b""

    @property
    def is_resumed(self):
        """Whether a session of before was taken up again."""
        return self.ssl != NULL and bool(openssl.SSL_session_reused(self.ssl))

    @property
    def peer_certificate(self):
        """DER of the peer's own certificate; None for none."""
        cdef X509 *certificate = NULL if self.ssl == NULL else openssl.SSL_get1_peer_certificate(self.ssl)
        if certificate == NULL:
            return None
        try:
            return der(certificate)
        finally:
            openssl.X509_free(certificate)

    @property
    def peer_chain(self):
        """DER of what the peer sent beside its own certificate; empty in a resumed connection."""
        cdef OPENSSL_STACK *chain = NULL if self.ssl == NULL else openssl.SSL_get_peer_cert_chain(self.ssl)
        if chain == NULL:
            return ()
        # Towards a server the library counts the server's own certificate among them.
        first = 0 if self.context.is_server else 1
        count = openssl.OPENSSL_sk_num(chain)
        return tuple([der(<X509 *>openssl.OPENSSL_sk_value(chain, i)) for i in range(first, count)])

    @property
    def verify_error(self):
        """Why the peer's certificate is not to be believed; "" when it is, or when there is none."""
        cdef long result = 0 if self.ssl == NULL else openssl.SSL_get_verify_result(self.ssl)
        return openssl.X509_verify_cert_error_string(result).decode() if result else ""

    def __repr__(self):
        return f"<TlsChannel fd={self.fd} {self.version} pending={self.stop - self.start} " \
               f"received={self.received} sent={self.sent}>"
