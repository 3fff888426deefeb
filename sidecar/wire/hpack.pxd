# cython: language_level=3
"""C side of hpack.pyx, for the connections that speak HTTP/2."""

cimport cython

cdef enum:
    INDEX = 0           # into the dynamic table, whatever it is
    PLAIN = 1           # a literal that is not kept; what the static table has whole is still an index
    NEVER = 2           # a literal that no hop may keep (RFC 7541 section 7.1.3)
    AUTO = 3            # one of the three by the field's name, and kept only if it is likely to come again

cdef enum:
    TABLE_SIZE = 4096   # bytes: the size of both tables until SETTINGS say otherwise, and the most an encoder uses
    SLOTS = 128         # entries such a table can have: each counts 32 bytes at least
    BUCKETS = 128
    SEEN = 64

cdef struct Block:      # bytes that grow; begins as zeros, its owner calls `release`
    unsigned char *data
    Py_ssize_t size
    Py_ssize_t capacity

cdef int reserve(Block *block, Py_ssize_t more) except -1       # room for `more` bytes behind `size`
cdef void release(Block *block) noexcept

cdef struct Entry:      # of a dynamic table: name and value lie side by side in its bytes
    unsigned int at             # counted from the first byte ever kept, modulo 2^32
    unsigned int name_len
    unsigned int value_len

cdef struct Table:      # the dynamic table (RFC 7541 section 2.3.2)
    unsigned char *data
    Py_ssize_t capacity         # of `data`
    unsigned int base           # what `Entry.at` would be for data[0]
    Py_ssize_t end              # offset behind the newest entry's value
    Entry *entries              # a ring
    unsigned int slots          # its length, a power of two
    unsigned int inserted       # entries ever kept, modulo 2^32
    unsigned int count
    Py_ssize_t size             # by the rule of section 4.1
    Py_ssize_t limit            # the size it may have

cdef struct Link:       # what an encoder finds an entry by; numbers are `Table.inserted` after its insertion
    unsigned int name_hash
    unsigned int pair_hash
    unsigned int older_name     # the next older entry in the same bucket
    unsigned int older_pair

cdef class FieldSink:
    # The bytes are valid during the call only. What it raises, `decode` raises; the connection must then end.
    cdef int field(self, const unsigned char *name, Py_ssize_t name_len, const unsigned char *value,
                   Py_ssize_t value_len, bint sensitive) except -1

@cython.final
cdef class Decoder:
    cdef Table table
    cdef Py_ssize_t bound               # of the size updates: what we announced
    cdef bint must_shrink               # the next block has to begin with a size update
    cdef unsigned char *scratch
    cdef Py_ssize_t scratch_capacity
    cdef int decode(self, const unsigned char *block, Py_ssize_t size, FieldSink sink) except -1
    cpdef int set_table_size(self, Py_ssize_t size) except -1
    cdef int _more_scratch(self, Py_ssize_t capacity) except -1
    cdef const unsigned char *_literal(self, const unsigned char *at, const unsigned char *end,
                                       FieldSink sink) except NULL
    cdef const unsigned char *_string(self, const unsigned char *at, const unsigned char *end, Py_ssize_t *used,
                                      const unsigned char **text, Py_ssize_t *size) except NULL
    cdef const unsigned char *_resize(self, const unsigned char *at, const unsigned char *end) except NULL

@cython.final
cdef class Encoder:
    cdef Table table
    cdef Py_ssize_t most                # bytes: ours, whatever the peer would take
    cdef Py_ssize_t smallest            # of the limits since the last block, -1: no update is due
    cdef Link links[SLOTS]
    cdef unsigned int names[BUCKETS]
    cdef unsigned int pairs[BUCKETS]
    cdef unsigned int seen[SEEN]        # hashes of pairs that came lately and were not kept
    cpdef int set_table_size(self, Py_ssize_t size) except -1
    cdef int begin(self, Block *out) except -1          # once ahead of the fields of a block
    cdef Py_ssize_t encode(self, Block *out, const unsigned char *name, Py_ssize_t name_len,
                           const unsigned char *value, Py_ssize_t value_len, int how) except -1
    cdef Py_ssize_t _done(self, Block *out, unsigned char *to) noexcept
    cdef int _is_likely(self, unsigned int pair_hash, unsigned int age, Py_ssize_t size) noexcept
    cdef unsigned int _pair(self, unsigned int pair_hash, const unsigned char *name, Py_ssize_t name_len,
                            const unsigned char *value, Py_ssize_t value_len) noexcept
    cdef unsigned int _name(self, unsigned int name_hash, const unsigned char *name, Py_ssize_t name_len) noexcept
    cdef int _keep(self, unsigned int name_hash, unsigned int pair_hash, const unsigned char *name,
                   Py_ssize_t name_len, const unsigned char *value, Py_ssize_t value_len) except -1
