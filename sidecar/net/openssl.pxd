# cython: language_level=3
"""OpenSSL as this process has it: types, constants and a table of its functions."""

from libc.stdint cimport uint64_t

cdef extern from *:
    """
    /* The types of the library's stable interface, by the names they have there; nothing looks inside. */
    typedef struct ssl_st SSL;
    typedef struct ssl_ctx_st SSL_CTX;
    typedef struct ssl_method_st SSL_METHOD;
    typedef struct ssl_session_st SSL_SESSION;
    typedef struct ssl_cipher_st SSL_CIPHER;
    typedef struct bio_st BIO;
    typedef struct bio_method_st BIO_METHOD;
    typedef struct x509_st X509;
    typedef struct X509_crl_st X509_CRL;
    typedef struct x509_store_st X509_STORE;
    typedef struct x509_store_ctx_st X509_STORE_CTX;
    typedef struct X509_VERIFY_PARAM_st X509_VERIFY_PARAM;
    typedef struct stack_st OPENSSL_STACK;
    typedef struct evp_pkey_st EVP_PKEY;
    typedef struct evp_cipher_st EVP_CIPHER;
    typedef struct evp_cipher_ctx_st EVP_CIPHER_CTX;
    typedef struct evp_mac_ctx_st EVP_MAC_CTX;
    typedef struct {
        const char *key;
        unsigned int data_type;
        void *data;
        size_t data_size;
        size_t return_size;
    } OSSL_PARAM;
    """
    ctypedef struct SSL:
        pass
    ctypedef struct SSL_CTX:
        pass
    ctypedef struct SSL_METHOD:
        pass
    ctypedef struct SSL_SESSION:
        pass
    ctypedef struct SSL_CIPHER:
        pass
    ctypedef struct BIO:
        pass
    ctypedef struct BIO_METHOD:
        pass
    ctypedef struct X509:
        pass
    ctypedef struct X509_CRL:
        pass
    ctypedef struct X509_STORE:
        pass
    ctypedef struct X509_STORE_CTX:
        pass
    ctypedef struct X509_VERIFY_PARAM:
        pass
    ctypedef struct OPENSSL_STACK:
        pass
    ctypedef struct EVP_PKEY:
        pass
    ctypedef struct EVP_CIPHER:
        pass
    ctypedef struct EVP_CIPHER_CTX:
        pass
    ctypedef struct EVP_MAC_CTX:
        pass
    ctypedef struct OSSL_PARAM:
        pass

cdef enum:
    SSL_ERROR_SSL = 1
    SSL_ERROR_WANT_READ = 2
    SSL_ERROR_WANT_WRITE = 3
    SSL_ERROR_SYSCALL = 5
    SSL_ERROR_ZERO_RETURN = 6
    SSL_SENT_SHUTDOWN = 1
    SSL_RECEIVED_SHUTDOWN = 2
    SSL_VERIFY_NONE = 0
    SSL_VERIFY_PEER = 1
    SSL_VERIFY_FAIL_IF_NO_PEER_CERT = 2
    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER = 2
    SSL_MODE_RELEASE_BUFFERS = 16
    SSL_SESS_CACHE_OFF = 0
    SSL_SESS_CACHE_CLIENT = 1
    SSL_SESS_CACHE_NO_INTERNAL = 0x300
    SSL_CTRL_SET_MSG_CALLBACK_ARG = 16
    SSL_CTRL_MODE = 33
    SSL_CTRL_SET_SESS_CACHE_MODE = 44
    SSL_CTRL_SET_TLSEXT_HOSTNAME = 55
    SSL_CTRL_SET_GROUPS_LIST = 92
    SSL_CTRL_SET_MIN_PROTO_VERSION = 123
    SSL_CLIENT_HELLO_ERROR = 0
    SSL_CLIENT_HELLO_SUCCESS = 1
    SSL_TLSEXT_ERR_OK = 0
    SSL_TLSEXT_ERR_ALERT_FATAL = 2
    SSL_TLSEXT_ERR_NOACK = 3
    TLSEXT_TYPE_SERVER_NAME = 0
    TLS1_2_VERSION = 0x303
    TLS1_3_VERSION = 0x304
    SSL_AD_DECODE_ERROR = 50
    SSL_AD_INTERNAL_ERROR = 80
    SSL_R_CERTIFICATE_VERIFY_FAILED = 134
    SSL_AD_REASON_OFFSET = 1000         # a reason above it is an alert that was received
    PEM_R_NO_START_LINE = 108
    BIO_FLAGS_READ = 1
    BIO_FLAGS_WRITE = 2
    BIO_FLAGS_SHOULD_RETRY = 8
    BIO_FLAGS_RETRY = 15
    BIO_CTRL_EOF = 2
    BIO_CTRL_PENDING = 10
    BIO_CTRL_FLUSH = 11
    BIO_CTRL_WPENDING = 13
    BIO_TYPE_SOURCE_SINK = 0x400
    X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS = 4
    X509_V_ERR_HOSTNAME_MISMATCH = 62
    X509_V_ERR_IP_ADDRESS_MISMATCH = 64
    X509_V_FLAG_CRL_CHECK = 0x4
    X509_V_FLAG_CRL_CHECK_ALL = 0x8
    X509_V_FLAG_PARTIAL_CHAIN = 0x80000

ctypedef int (*VerifyCallback)(int is_fine, X509_STORE_CTX *ctx) noexcept
ctypedef int (*AlpnCallback)(SSL *ssl, const unsigned char **chosen, unsigned char *chosen_size,
                             const unsigned char *offer, unsigned int offer_size, void *argument) noexcept
ctypedef int (*HelloCallback)(SSL *ssl, int *alert, void *argument) noexcept
ctypedef int (*TicketCallback)(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                               EVP_MAC_CTX *mac, int is_sealing) noexcept
ctypedef void (*MessageCallback)(int is_written, int version, int content, const void *data, size_t size,
                                 SSL *ssl, void *argument) noexcept
ctypedef int (*SessionCallback)(SSL *ssl, SSL_SESSION *session) noexcept
ctypedef int (*ReadCallback)(BIO *bio, char *into, size_t size, size_t *count) noexcept
ctypedef int (*WriteCallback)(BIO *bio, const char *data, size_t size, size_t *count) noexcept
ctypedef long (*ControlCallback)(BIO *bio, int command, long number, void *data) noexcept
ctypedef int (*PasswordCallback)(char *into, int size, int is_writing, void *argument) noexcept

cdef struct OpenSSL:
    # contexts
    const SSL_METHOD *(*TLS_server_method)() noexcept
    const SSL_METHOD *(*TLS_client_method)() noexcept
    SSL_CTX *(*SSL_CTX_new)(const SSL_METHOD *method) noexcept
    void (*SSL_CTX_free)(SSL_CTX *ctx) noexcept
    long (*SSL_CTX_ctrl)(SSL_CTX *ctx, int command, long number, void *data) noexcept
    uint64_t (*SSL_CTX_set_options)(SSL_CTX *ctx, uint64_t options) noexcept
    void (*SSL_CTX_set_security_level)(SSL_CTX *ctx, int level) noexcept
    int (*SSL_CTX_set_cipher_list)(SSL_CTX *ctx, const char *names) noexcept
    int (*SSL_CTX_set_session_id_context)(SSL_CTX *ctx, const unsigned char *id, unsigned int size) noexcept
    int (*SSL_CTX_set_num_tickets)(SSL_CTX *ctx, size_t count) noexcept
    long (*SSL_CTX_set_timeout)(SSL_CTX *ctx, long seconds) noexcept
    void (*SSL_CTX_set_verify)(SSL_CTX *ctx, int mode, VerifyCallback callback) noexcept
    void (*SSL_CTX_set_cert_store)(SSL_CTX *ctx, X509_STORE *store) noexcept
    int (*SSL_CTX_add_client_CA)(SSL_CTX *ctx, X509 *certificate) noexcept
    int (*SSL_CTX_use_cert_and_key)(SSL_CTX *ctx, X509 *leaf, EVP_PKEY *key, OPENSSL_STACK *chain,
        int override) noexcept
    int (*SSL_CTX_set_alpn_protos)(SSL_CTX *ctx, const unsigned char *protocols, unsigned int size) noexcept
    void (*SSL_CTX_set_alpn_select_cb)(SSL_CTX *ctx, AlpnCallback callback, void *argument) noexcept
    void (*SSL_CTX_set_client_hello_cb)(SSL_CTX *ctx, HelloCallback callback, void *argument) noexcept
    int (*SSL_CTX_set_tlsext_ticket_key_evp_cb)(SSL_CTX *ctx, TicketCallback callback) noexcept
    void (*SSL_CTX_set_msg_callback)(SSL_CTX *ctx, MessageCallback callback) noexcept
    void (*SSL_CTX_sess_set_new_cb)(SSL_CTX *ctx, SessionCallback callback) noexcept
    # connections
    SSL *(*SSL_new)(SSL_CTX *ctx) noexcept
    void (*SSL_free)(SSL *ssl) noexcept
    void (*SSL_set_bio)(SSL *ssl, BIO *input, BIO *output) noexcept
    int (*SSL_set_num_tickets)(SSL *ssl, size_t count) noexcept
    int (*SSL_set_ex_data)(SSL *ssl, int index, void *data) noexcept
    void *(*SSL_get_ex_data)(const SSL *ssl, int index) noexcept
    void (*SSL_set_accept_state)(SSL *ssl) noexcept
    void (*SSL_set_connect_state)(SSL *ssl) noexcept
    int (*SSL_do_handshake)(SSL *ssl) noexcept
    int (*SSL_read)(SSL *ssl, void *into, int size) noexcept
    int (*SSL_peek)(SSL *ssl, void *into, int size) noexcept
    int (*SSL_write)(SSL *ssl, const void *data, int size) noexcept
    int (*SSL_pending)(const SSL *ssl) noexcept
    int (*SSL_shutdown)(SSL *ssl) noexcept
    void (*SSL_set_shutdown)(SSL *ssl, int mode) noexcept
    int (*SSL_get_error)(const SSL *ssl, int result) noexcept
    long (*SSL_ctrl)(SSL *ssl, int command, long number, void *data) noexcept
    SSL_CTX *(*SSL_set_SSL_CTX)(SSL *ssl, SSL_CTX *ctx) noexcept
    void (*SSL_set_verify)(SSL *ssl, int mode, VerifyCallback callback) noexcept
    int (*SSL_set_session_id_context)(SSL *ssl, const unsigned char *id, unsigned int size) noexcept
    int (*SSL_client_hello_get0_ext)(SSL *ssl, unsigned int type, const unsigned char **data,
        size_t *size) noexcept
    int (*SSL_set1_host)(SSL *ssl, const char *name) noexcept
    void (*SSL_set_hostflags)(SSL *ssl, unsigned int flags) noexcept
    X509_VERIFY_PARAM *(*SSL_get0_param)(SSL *ssl) noexcept
    long (*SSL_get_verify_result)(const SSL *ssl) noexcept
    X509 *(*SSL_get0_peer_certificate)(const SSL *ssl) noexcept
    X509 *(*SSL_get1_peer_certificate)(const SSL *ssl) noexcept
    OPENSSL_STACK *(*SSL_get_peer_cert_chain)(const SSL *ssl) noexcept
    int (*SSL_version)(const SSL *ssl) noexcept
    const char *(*SSL_get_version)(const SSL *ssl) noexcept
    const SSL_CIPHER *(*SSL_get_current_cipher)(const SSL *ssl) noexcept
    const char *(*SSL_CIPHER_get_name)(const SSL_CIPHER *cipher) noexcept
    void (*SSL_get0_alpn_selected)(const SSL *ssl, const unsigned char **data, unsigned int *size) noexcept
    int (*SSL_session_reused)(const SSL *ssl) noexcept
    int (*SSL_set_session)(SSL *ssl, SSL_SESSION *session) noexcept
    void (*SSL_SESSION_free)(SSL_SESSION *session) noexcept
    int (*i2d_SSL_SESSION)(const SSL_SESSION *session, unsigned char **into) noexcept
    SSL_SESSION *(*d2i_SSL_SESSION)(SSL_SESSION **into, const unsigned char **data, long size) noexcept
    # input and output
    BIO_METHOD *(*BIO_meth_new)(int type, const char *name) noexcept
    int (*BIO_meth_set_read_ex)(BIO_METHOD *method, ReadCallback callback) noexcept
    int (*BIO_meth_set_write_ex)(BIO_METHOD *method, WriteCallback callback) noexcept
    int (*BIO_meth_set_ctrl)(BIO_METHOD *method, ControlCallback callback) noexcept
    int (*BIO_get_new_index)() noexcept
    BIO *(*BIO_new)(const BIO_METHOD *method) noexcept
    int (*BIO_free)(BIO *bio) noexcept
    void (*BIO_set_data)(BIO *bio, void *data) noexcept
    void *(*BIO_get_data)(BIO *bio) noexcept
    void (*BIO_set_init)(BIO *bio, int is_ready) noexcept
    void (*BIO_set_flags)(BIO *bio, int flags) noexcept
    void (*BIO_clear_flags)(BIO *bio, int flags) noexcept
    BIO *(*BIO_new_mem_buf)(const void *data, int size) noexcept
    # certificates and keys
    X509 *(*PEM_read_bio_X509)(BIO *bio, X509 **into, PasswordCallback callback, void *argument) noexcept
    X509_CRL *(*PEM_read_bio_X509_CRL)(BIO *bio, X509_CRL **into, PasswordCallback callback,
        void *argument) noexcept
    EVP_PKEY *(*PEM_read_bio_PrivateKey)(BIO *bio, EVP_PKEY **into, PasswordCallback callback,
        void *argument) noexcept
    void (*X509_free)(X509 *certificate) noexcept
    void (*X509_CRL_free)(X509_CRL *crl) noexcept
    void (*EVP_PKEY_free)(EVP_PKEY *key) noexcept
    int (*X509_check_private_key)(const X509 *certificate, const EVP_PKEY *key) noexcept
    int (*i2d_X509)(const X509 *certificate, unsigned char **into) noexcept
    X509_STORE *(*X509_STORE_new)() noexcept
    void (*X509_STORE_free)(X509_STORE *store) noexcept
    int (*X509_STORE_up_ref)(X509_STORE *store) noexcept
    int (*X509_STORE_add_cert)(X509_STORE *store, X509 *certificate) noexcept
    int (*X509_STORE_add_crl)(X509_STORE *store, X509_CRL *crl) noexcept
    int (*X509_STORE_set_flags)(X509_STORE *store, unsigned long flags) noexcept
    int (*X509_STORE_set_default_paths)(X509_STORE *store) noexcept
    int (*X509_STORE_load_file)(X509_STORE *store, const char *path) noexcept
    int (*X509_VERIFY_PARAM_set1_ip_asc)(X509_VERIFY_PARAM *parameters, const char *address) noexcept
    int (*SSL_get_ex_data_X509_STORE_CTX_idx)() noexcept
    void *(*X509_STORE_CTX_get_ex_data)(const X509_STORE_CTX *ctx, int index) noexcept
    const char *(*X509_verify_cert_error_string)(long result) noexcept
    OPENSSL_STACK *(*OPENSSL_sk_new_null)() noexcept
    int (*OPENSSL_sk_push)(OPENSSL_STACK *stack, const void *item) noexcept
    int (*OPENSSL_sk_num)(const OPENSSL_STACK *stack) noexcept
    void *(*OPENSSL_sk_value)(const OPENSSL_STACK *stack, int index) noexcept
    void (*OPENSSL_sk_free)(OPENSSL_STACK *stack) noexcept
    void (*CRYPTO_free)(void *data, const char *file, int line) noexcept
    # what seals tickets
    const EVP_CIPHER *(*EVP_aes_256_cbc)() noexcept
    int (*EVP_EncryptInit_ex)(EVP_CIPHER_CTX *ctx, const EVP_CIPHER *cipher, void *engine,
        const unsigned char *key, const unsigned char *iv) noexcept
    int (*EVP_DecryptInit_ex)(EVP_CIPHER_CTX *ctx, const EVP_CIPHER *cipher, void *engine,
        const unsigned char *key, const unsigned char *iv) noexcept
    int (*EVP_MAC_CTX_set_params)(EVP_MAC_CTX *ctx, const OSSL_PARAM *parameters) noexcept
    OSSL_PARAM (*OSSL_PARAM_construct_octet_string)(const char *key, void *data, size_t size) noexcept
    OSSL_PARAM (*OSSL_PARAM_construct_utf8_string)(const char *key, char *data, size_t size) noexcept
    OSSL_PARAM (*OSSL_PARAM_construct_end)() noexcept
    # errors
    unsigned long (*ERR_peek_error)() noexcept
    unsigned long (*ERR_peek_last_error)() noexcept
    void (*ERR_clear_error)() noexcept
    const char *(*ERR_reason_error_string)(unsigned long error) noexcept
    unsigned long (*OpenSSL_version_num)() noexcept
    const char *(*OpenSSL_version)(int what) noexcept

cdef OpenSSL openssl

cdef int reason() noexcept
cdef str reason_text()
cdef bytes der(const X509 *certificate)
