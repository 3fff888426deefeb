# cython: language_level=3
"""OpenSSL as this process has it: the functions of the libraries that Python's `_ssl` has loaded.

Law: no header and no library of ours. What is used is declared in the .pxd (the stable interface of OpenSSL
3) and found at run time, so a fix of the system's OpenSSL is a fix of this program. Importing this module
raises TlsError where there is no such library; whoever has no use for TLS does not import it.
"""

import _ssl

from ..errors import TlsError

cdef extern from "dlfcn.h" nogil:
    int RTLD_NOW
    void *dlopen(const char *path, int flags)
    void *dlsym(void *handle, const char *name)

_OLDEST = 0x30000000


cdef void *_library() except NULL:
    # The search of a handle goes on to the libraries that it was linked with.
    cdef bytes path = getattr(_ssl, "__file__", "").encode()
    cdef void *handle = dlopen(<const char *>path if path else NULL, RTLD_NOW)
    if handle == NULL:
        raise TlsError("TLS is not available: Python's module _ssl cannot be opened")
    return handle


cdef void *_function(name) except NULL:
    cdef void *found = dlsym(_handle, name.encode())
    if found == NULL:
        raise TlsError(f"TLS needs OpenSSL 3.0 or later: Python's has no function {name}")
    return found


cdef int _load() except -1:
    (<void **>&openssl.TLS_server_method)[0] = _function("TLS_server_method")
    (<void **>&openssl.TLS_client_method)[0] = _function("TLS_client_method")
    (<void **>&openssl.SSL_CTX_new)[0] = _function("SSL_CTX_new")
    (<void **>&openssl.SSL_CTX_free)[0] = _function("SSL_CTX_free")
    (<void **>&openssl.SSL_CTX_ctrl)[0] = _function("SSL_CTX_ctrl")
    (<void **>&openssl.SSL_CTX_set_options)[0] = _function("SSL_CTX_set_options")
    (<void **>&openssl.SSL_CTX_set_security_level)[0] = _function("SSL_CTX_set_security_level")
    (<void **>&openssl.SSL_CTX_set_cipher_list)[0] = _function("SSL_CTX_set_cipher_list")
    (<void **>&openssl.SSL_CTX_set_session_id_context)[0] = _function("SSL_CTX_set_session_id_context")
    (<void **>&openssl.SSL_CTX_set_num_tickets)[0] = _function("SSL_CTX_set_num_tickets")
    (<void **>&openssl.SSL_set_num_tickets)[0] = _function("SSL_set_num_tickets")
    (<void **>&openssl.SSL_get0_peer_certificate)[0] = _function("SSL_get0_peer_certificate")
    (<void **>&openssl.SSL_get_ex_data_X509_STORE_CTX_idx)[0] = _function(
        "SSL_get_ex_data_X509_STORE_CTX_idx"
    )
    (<void **>&openssl.X509_STORE_CTX_get_ex_data)[0] = _function("X509_STORE_CTX_get_ex_data")
    (<void **>&openssl.SSL_CTX_set_timeout)[0] = _function("SSL_CTX_set_timeout")
    (<void **>&openssl.SSL_CTX_set_verify)[0] = _function("SSL_CTX_set_verify")
    (<void **>&openssl.SSL_CTX_set_cert_store)[0] = _function("SSL_CTX_set_cert_store")
    (<void **>&openssl.SSL_CTX_add_client_CA)[0] = _function("SSL_CTX_add_client_CA")
    (<void **>&openssl.SSL_CTX_use_cert_and_key)[0] = _function("SSL_CTX_use_cert_and_key")
    (<void **>&openssl.SSL_CTX_set_alpn_protos)[0] = _function("SSL_CTX_set_alpn_protos")
    (<void **>&openssl.SSL_CTX_set_alpn_select_cb)[0] = _function("SSL_CTX_set_alpn_select_cb")
    (<void **>&openssl.SSL_CTX_set_client_hello_cb)[0] = _function("SSL_CTX_set_client_hello_cb")
    (<void **>&openssl.SSL_CTX_set_tlsext_ticket_key_evp_cb)[0] = _function(
        "SSL_CTX_set_tlsext_ticket_key_evp_cb"
    )
    (<void **>&openssl.SSL_CTX_set_msg_callback)[0] = _function("SSL_CTX_set_msg_callback")
    (<void **>&openssl.SSL_CTX_sess_set_new_cb)[0] = _function("SSL_CTX_sess_set_new_cb")
    (<void **>&openssl.SSL_new)[0] = _function("SSL_new")
    (<void **>&openssl.SSL_free)[0] = _function("SSL_free")
    (<void **>&openssl.SSL_set_bio)[0] = _function("SSL_set_bio")
    (<void **>&openssl.SSL_set_ex_data)[0] = _function("SSL_set_ex_data")
    (<void **>&openssl.SSL_get_ex_data)[0] = _function("SSL_get_ex_data")
    (<void **>&openssl.SSL_set_accept_state)[0] = _function("SSL_set_accept_state")
    (<void **>&openssl.SSL_set_connect_state)[0] = _function("SSL_set_connect_state")
    (<void **>&openssl.SSL_do_handshake)[0] = _function("SSL_do_handshake")
    (<void **>&openssl.SSL_read)[0] = _function("SSL_read")
    (<void **>&openssl.SSL_peek)[0] = _function("SSL_peek")
    (<void **>&openssl.SSL_write)[0] = _function("SSL_write")
    (<void **>&openssl.SSL_pending)[0] = _function("SSL_pending")
    (<void **>&openssl.SSL_shutdown)[0] = _function("SSL_shutdown")
    (<void **>&openssl.SSL_set_shutdown)[0] = _function("SSL_set_shutdown")
    (<void **>&openssl.SSL_get_error)[0] = _function("SSL_get_error")
    (<void **>&openssl.SSL_ctrl)[0] = _function("SSL_ctrl")
    (<void **>&openssl.SSL_set_SSL_CTX)[0] = _function("SSL_set_SSL_CTX")
    (<void **>&openssl.SSL_set_verify)[0] = _function("SSL_set_verify")
    (<void **>&openssl.SSL_set_session_id_context)[0] = _function("SSL_set_session_id_context")
    (<void **>&openssl.SSL_client_hello_get0_ext)[0] = _function("SSL_client_hello_get0_ext")
    (<void **>&openssl.SSL_set1_host)[0] = _function("SSL_set1_host")
    (<void **>&openssl.SSL_set_hostflags)[0] = _function("SSL_set_hostflags")
    (<void **>&openssl.SSL_get0_param)[0] = _function("SSL_get0_param")
    (<void **>&openssl.SSL_get_verify_result)[0] = _function("SSL_get_verify_result")
    (<void **>&openssl.SSL_get1_peer_certificate)[0] = _function("SSL_get1_peer_certificate")
    (<void **>&openssl.SSL_get_peer_cert_chain)[0] = _function("SSL_get_peer_cert_chain")
    (<void **>&openssl.SSL_version)[0] = _function("SSL_version")
    (<void **>&openssl.SSL_get_version)[0] = _function("SSL_get_version")
    (<void **>&openssl.SSL_get_current_cipher)[0] = _function("SSL_get_current_cipher")
    (<void **>&openssl.SSL_CIPHER_get_name)[0] = _function("SSL_CIPHER_get_name")
    (<void **>&openssl.SSL_get0_alpn_selected)[0] = _function("SSL_get0_alpn_selected")
    (<void **>&openssl.SSL_session_reused)[0] = _function("SSL_session_reused")
    (<void **>&openssl.SSL_set_session)[0] = _function("SSL_set_session")
    (<void **>&openssl.SSL_SESSION_free)[0] = _function("SSL_SESSION_free")
    (<void **>&openssl.i2d_SSL_SESSION)[0] = _function("i2d_SSL_SESSION")
    (<void **>&openssl.d2i_SSL_SESSION)[0] = _function("d2i_SSL_SESSION")
    (<void **>&openssl.BIO_meth_new)[0] = _function("BIO_meth_new")
    (<void **>&openssl.BIO_meth_set_read_ex)[0] = _function("BIO_meth_set_read_ex")
    (<void **>&openssl.BIO_meth_set_write_ex)[0] = _function("BIO_meth_set_write_ex")
    (<void **>&openssl.BIO_meth_set_ctrl)[0] = _function("BIO_meth_set_ctrl")
    (<void **>&openssl.BIO_get_new_index)[0] = _function("BIO_get_new_index")
    (<void **>&openssl.BIO_new)[0] = _function("BIO_new")
    (<void **>&openssl.BIO_free)[0] = _function("BIO_free")
    (<void **>&openssl.BIO_set_data)[0] = _function("BIO_set_data")
    (<void **>&openssl.BIO_get_data)[0] = _function("BIO_get_data")
    (<void **>&openssl.BIO_set_init)[0] = _function("BIO_set_init")
    (<void **>&openssl.BIO_set_flags)[0] = _function("BIO_set_flags")
    (<void **>&openssl.BIO_clear_flags)[0] = _function("BIO_clear_flags")
    (<void **>&openssl.BIO_new_mem_buf)[0] = _function("BIO_new_mem_buf")
    (<void **>&openssl.PEM_read_bio_X509)[0] = _function("PEM_read_bio_X509")
    (<void **>&openssl.PEM_read_bio_X509_CRL)[0] = _function("PEM_read_bio_X509_CRL")
    (<void **>&openssl.PEM_read_bio_PrivateKey)[0] = _function("PEM_read_bio_PrivateKey")
    (<void **>&openssl.X509_free)[0] = _function("X509_free")
    (<void **>&openssl.X509_CRL_free)[0] = _function("X509_CRL_free")
    (<void **>&openssl.EVP_PKEY_free)[0] = _function("EVP_PKEY_free")
    (<void **>&openssl.X509_check_private_key)[0] = _function("X509_check_private_key")
    (<void **>&openssl.i2d_X509)[0] = _function("i2d_X509")
    (<void **>&openssl.X509_STORE_new)[0] = _function("X509_STORE_new")
    (<void **>&openssl.X509_STORE_free)[0] = _function("X509_STORE_free")
    (<void **>&openssl.X509_STORE_up_ref)[0] = _function("X509_STORE_up_ref")
    (<void **>&openssl.X509_STORE_add_cert)[0] = _function("X509_STORE_add_cert")
    (<void **>&openssl.X509_STORE_add_crl)[0] = _function("X509_STORE_add_crl")
    (<void **>&openssl.X509_STORE_set_flags)[0] = _function("X509_STORE_set_flags")
    (<void **>&openssl.X509_STORE_set_default_paths)[0] = _function("X509_STORE_set_default_paths")
    (<void **>&openssl.X509_STORE_load_file)[0] = _function("X509_STORE_load_file")
    (<void **>&openssl.X509_VERIFY_PARAM_set1_ip_asc)[0] = _function("X509_VERIFY_PARAM_set1_ip_asc")
    (<void **>&openssl.X509_verify_cert_error_string)[0] = _function("X509_verify_cert_error_string")
    (<void **>&openssl.OPENSSL_sk_new_null)[0] = _function("OPENSSL_sk_new_null")
    (<void **>&openssl.OPENSSL_sk_push)[0] = _function("OPENSSL_sk_push")
    (<void **>&openssl.OPENSSL_sk_num)[0] = _function("OPENSSL_sk_num")
    (<void **>&openssl.OPENSSL_sk_value)[0] = _function("OPENSSL_sk_value")
    (<void **>&openssl.OPENSSL_sk_free)[0] = _function("OPENSSL_sk_free")
    (<void **>&openssl.CRYPTO_free)[0] = _function("CRYPTO_free")
    (<void **>&openssl.EVP_aes_256_cbc)[0] = _function("EVP_aes_256_cbc")
    (<void **>&openssl.EVP_EncryptInit_ex)[0] = _function("EVP_EncryptInit_ex")
    (<void **>&openssl.EVP_DecryptInit_ex)[0] = _function("EVP_DecryptInit_ex")
    (<void **>&openssl.EVP_MAC_CTX_set_params)[0] = _function("EVP_MAC_CTX_set_params")
    (<void **>&openssl.OSSL_PARAM_construct_octet_string)[0] = _function("OSSL_PARAM_construct_octet_string")
    (<void **>&openssl.OSSL_PARAM_construct_utf8_string)[0] = _function("OSSL_PARAM_construct_utf8_string")
    (<void **>&openssl.OSSL_PARAM_construct_end)[0] = _function("OSSL_PARAM_construct_end")
    (<void **>&openssl.ERR_peek_error)[0] = _function("ERR_peek_error")
    (<void **>&openssl.ERR_peek_last_error)[0] = _function("ERR_peek_last_error")
    (<void **>&openssl.ERR_clear_error)[0] = _function("ERR_clear_error")
    (<void **>&openssl.ERR_reason_error_string)[0] = _function("ERR_reason_error_string")
    (<void **>&openssl.OpenSSL_version_num)[0] = _function("OpenSSL_version_num")
    (<void **>&openssl.OpenSSL_version)[0] = _function("OpenSSL_version")
    if openssl.OpenSSL_version_num() < _OLDEST:
        raise TlsError(f"TLS needs OpenSSL 3.0 or later: Python was built with {version()}")
    return 0


def version():
    """What the library calls itself."""
    return openssl.OpenSSL_version(0).decode()


cdef int reason() noexcept:
    """The reason of the last error of this thread's queue; 0: none."""
    return openssl.ERR_peek_last_error() & 0x7FFFFF


cdef str reason_text():
    """What the library says of the last error of this thread's queue, which is emptied."""
    cdef const char *text = openssl.ERR_reason_error_string(openssl.ERR_peek_last_error())
    openssl.ERR_clear_error()
    if text == NULL:
        return "unknown error"
    said = text.decode("ascii", "replace")
    return _PLAINER.get(said, said)


# What OpenSSL says shortly, for those who do not know its words.
_PLAINER = {
    "ee key too small": "its key is too small: RSA takes 2048 bits at least, ECDSA 224",
    "ca key too small": "the key of its issuer is too small: RSA takes 2048 bits at least, ECDSA 224",
    "ca md too weak": "it, or its issuer, is signed with a digest that is broken, like SHA-1: have it made anew",
}


cdef bytes der(const X509 *certificate):
    """A certificate as it is on the wire."""
    cdef unsigned char *data = NULL
    cdef int size = openssl.i2d_X509(certificate, &data)
    if size < 0:
        openssl.ERR_clear_error()
        return b""
    try:
        return <bytes>data[:size]
    finally:
        openssl.CRYPTO_free(data, NULL, 0)


cdef void *_handle = _library()
_load()
