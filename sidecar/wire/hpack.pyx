# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Header compression of HTTP/2 (RFC 7541): both directions, strict and bounded.

Law: a violation is raised as Malformed and ends the connection, because the two tables no longer agree.
No Python object is made per field. Longer than other files because both directions share the tables.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memmove

from .head cimport refuse

cdef extern from "endian.h" nogil:
    uint64_t be64toh(uint64_t)
    uint32_t htobe32(uint32_t)

HOW = {"index": INDEX, "plain": PLAIN, "never": NEVER, "auto": AUTO}

# ---------------------------------------------------------------------- Huffman code (appendix B)
# The code is canonical: ordered by length, then by symbol. So the lengths say all; 256 is EOS.
cdef bytes CODE_LENGTHS = bytes((
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
))
cdef enum:
    EOS = 256
    LONGEST = 30

cdef uint32_t CODES[256]
cdef uint8_t LENGTHS[256]
cdef uint16_t SHORT[256]            # the next 8 bits → length * 256 + symbol; 0: the code is longer
# Longer codes, by length: the first value above them (in 32 bits from the left), their first code, and
# where their symbols begin in ORDER.
cdef uint64_t CEILING[LONGEST + 1]
cdef uint32_t FIRST[LONGEST + 1]
cdef uint16_t OFFSET[LONGEST + 1]
cdef uint16_t ORDER[257]

cdef void _fill_codes() noexcept:
    cdef uint32_t code = 0
    cdef int length, symbol, i, count = 0
    for length in range(1, LONGEST + 1):
        code <<= 1
        FIRST[length] = code
        OFFSET[length] = count
        for symbol in range(257):
            if <int>CODE_LENGTHS[symbol] != length:
                continue
            ORDER[count] = symbol
            count += 1
            if symbol < EOS:
                CODES[symbol] = code
                LENGTHS[symbol] = length
            if length <= 8:
                for i in range(1 << (8 - length)):
                    SHORT[(code << (8 - length)) + i] = (length << 8) + symbol
            code += 1
        CEILING[length] = <uint64_t>code << (32 - length)

_fill_codes()


cdef int _long_code(uint64_t bits, int *symbol) noexcept:
    """The code longer than 8 bits that `bits` begins with: its length."""
    cdef uint32_t top = bits >> 32
    cdef int length = 10
    while top >= CEILING[length] and length < LONGEST:
        length += 1
    symbol[0] = ORDER[OFFSET[length] + (top >> (32 - length)) - FIRST[length]]
    return length


cdef Py_ssize_t _huffman_decode(const uint8_t *at, Py_ssize_t size, uint8_t *out) noexcept:
    """The number of bytes written to `out` (at most 8/5 of `size`), -1 when it is not valid."""
    cdef const uint8_t *end = at + size
    cdef uint8_t *to = out
    cdef uint64_t bits = 0, word = 0    # `bits`: what comes next, from the left
    cdef int held = 0, length, symbol = 0
    cdef uint16_t entry
    while True:
        if end - at >= 8:
            memcpy(&word, at, 8)
            bits |= be64toh(word) >> held
            at += (63 - held) >> 3
            held |= 56
        else:
            while held <= 56 and at < end:
                bits |= <uint64_t>at[0] << (56 - held)
                at += 1
                held += 8
        while held >= 8 and SHORT[bits >> 56]:
            entry = SHORT[bits >> 56]
            to[0] = <uint8_t>entry
            to += 1
            length = entry >> 8
            bits <<= length
            held -= length
        if at < end and held < LONGEST:
            continue
        entry = SHORT[bits >> 56]
        length = entry >> 8 if entry else _long_code(bits, &symbol)
        if length > held:               # no code is left, only padding
            if held > 7 or bits != ~(<uint64_t>-1 >> held):
                return -1
            return to - out
        if entry:
            symbol = entry & 255
        elif symbol == EOS:
            return -1
        to[0] = <uint8_t>symbol
        to += 1
        bits <<= length
        held -= length


cdef inline Py_ssize_t _huffman_size(const uint8_t *text, Py_ssize_t size) noexcept:
    """Bytes that `text` takes when it is coded."""
    cdef Py_ssize_t i, bits = 7
    for i in range(size):
        bits += LENGTHS[text[i]]
    return bits >> 3


cdef inline void _huffman_encode(uint8_t *to, const uint8_t *text, Py_ssize_t size) noexcept:
    """May write up to 4 bytes more than the coded size."""
    cdef uint64_t bits = 0
    cdef uint32_t word
    cdef int held = 0
    cdef Py_ssize_t i
    for i in range(size):
        bits = bits << LENGTHS[text[i]] | CODES[text[i]]
        held += LENGTHS[text[i]]
        if held >= 32:
            held -= 32
            word = htobe32(<uint32_t>(bits >> held))
            memcpy(to, &word, 4)
            to += 4
    word = htobe32(<uint32_t>(bits << (32 - held) | (<uint64_t>0xFFFFFFFF >> held)))
    memcpy(to, &word, 4)


# ---------------------------------------------------------------------- bytes, integers, names

cdef int reserve(Block *block, Py_ssize_t more) except -1:
    cdef Py_ssize_t capacity = block.capacity
    cdef unsigned char *data
    if capacity - block.size >= more:
        return 0
    capacity = max(256, 2 * capacity, block.size + more)
    data = <unsigned char *>PyMem_Realloc(block.data, capacity)
    if data == NULL:
        raise MemoryError
    block.data = data
    block.capacity = capacity
    return 0


cdef void release(Block *block) noexcept:
    PyMem_Free(block.data)
    block.data = NULL
    block.size = block.capacity = 0


cdef inline uint8_t *_put_integer(uint8_t *to, uint8_t flags, uint8_t mask, Py_ssize_t value) noexcept:
    """RFC 7541 section 5.1; at most 10 bytes."""
    if value < mask:
        to[0] = flags | <uint8_t>value
        return to + 1
    to[0] = flags | mask
    to += 1
    value -= mask
    while value >= 128:
        to[0] = <uint8_t>(value & 127) | 128
        to += 1
        value >>= 7
    to[0] = <uint8_t>value
    return to + 1


cdef inline uint8_t *_put_string(uint8_t *to, const uint8_t *text, Py_ssize_t size) noexcept:
    cdef Py_ssize_t coded = _huffman_size(text, size)
    if coded < size:
        to = _put_integer(to, 0x80, 0x7F, coded)
        _huffman_encode(to, text, size)
        return to + coded
    to = _put_integer(to, 0, 0x7F, size)
    memcpy(to, text, size)
    return to + size


cdef const uint8_t *_integer(const uint8_t *at, const uint8_t *end, uint8_t mask, Py_ssize_t *value) except NULL:
    """Read an integer of at most 2^31 - 1, in at most 5 bytes behind the prefix. There is a first byte."""
    cdef uint64_t number = at[0] & mask
    cdef int shift = 0
    at += 1
    if number == mask:
        while True:
            if at == end:
                refuse("hpack_truncated", 400)
            if shift > 28:
                refuse("hpack_integer_too_large", 400)
            number += <uint64_t>(at[0] & 127) << shift
            shift += 7
            at += 1
            if (at - 1)[0] < 128:
                break
        if number > 0x7FFFFFFF:
            refuse("hpack_integer_too_large", 400)
    value[0] = <Py_ssize_t>number
    return at


cdef inline uint64_t _lower_word(uint64_t word) noexcept:
    """Eight bytes at once: ASCII letters in lower case, everything else as it is."""
    cdef uint64_t ones = 0x0101010101010101, low = word & (ones * 0x7F)
    cdef uint64_t letters = (low + ones * (0x80 - 65)) & ~(low + ones * (0x80 - 91)) & ~word & (ones * 0x80)
    return word | letters >> 2


cdef inline void _lower(uint8_t *to, const uint8_t *name, Py_ssize_t size) noexcept:
    cdef uint64_t word
    cdef Py_ssize_t at = 0
    if size < 8:
        for at in range(size):
            to[at] = name[at] + 32 if 65 <= name[at] <= 90 else name[at]
        return
    while at < size:
        if at > size - 8:
            at = size - 8
        memcpy(&word, name + at, 8)
        word = _lower_word(word)
        memcpy(to + at, &word, 8)
        at += 8


cdef inline uint64_t _mix(uint64_t state, uint64_t word) noexcept:
    state = (state ^ word) * <uint64_t>0x9E3779B97F4A7C15
    return state ^ state >> 32


cdef inline uint64_t _hash(const uint8_t *text, Py_ssize_t size, uint64_t state) noexcept:
    """For a table of 128 entries: what collides costs a sender as much as us, one comparison each."""
    cdef uint64_t word = 0
    cdef uint32_t left, right
    cdef Py_ssize_t at = 0
    state = _mix(state, size)
    if size >= 8:
        while at < size:
            memcpy(&word, text + (at if at < size - 8 else size - 8), 8)
            state = _mix(state, word)
            at += 8
    elif size >= 4:
        memcpy(&left, text, 4)
        memcpy(&right, text + size - 4, 4)
        state = _mix(state, <uint64_t>left << 32 | right)
    elif size > 0:
        state = _mix(state, text[0] | <uint64_t>text[size >> 1] << 8 | <uint64_t>text[size - 1] << 16)
    return state


# ---------------------------------------------------------------------- static table (appendix A)

cdef enum:
    STATIC = 61

cdef struct Static:
    const uint8_t *name
    Py_ssize_t name_len
    const uint8_t *value
    Py_ssize_t value_len
    int how

cdef tuple STATIC_FIELDS = tuple(field.strip().encode().partition(b" ")[::2] for field in """
    :authority | :method GET | :method POST | :path / | :path /index.html | :scheme http | :scheme https |
    :status 200 | :status 204 | :status 206 | :status 304 | :status 400 | :status 404 | :status 500 |
    accept-charset | accept-encoding gzip, deflate | accept-language | accept-ranges | accept |
    access-control-allow-origin | age | allow | authorization | cache-control | content-disposition |
    content-encoding | content-language | content-length | content-location | content-range |
    content-type | cookie | date | etag | expect | expires | from | host | if-match | if-modified-since |
    if-none-match | if-range | if-unmodified-since | last-modified | link | location | max-forwards |
    proxy-authenticate | proxy-authorization | range | referer | refresh | retry-after | server |
    set-cookie | strict-transport-security | transfer-encoding | user-agent | vary | via | www-authenticate
""".split("|"))
# Values that change with every message, and secrets. A short cookie can be guessed (section 7.1.3).
cdef frozenset CHANGING = frozenset((b"age", b"content-length", b"content-range", b"range", b"set-cookie"))
cdef frozenset SECRET = frozenset((b"authorization", b"proxy-authorization"))
cdef enum:
    BY_SIZE = 4
    SHORT_COOKIE = 20

cdef Static STATICS[STATIC + 1]
cdef uint8_t FIRST_BY_NAME[256]     # open addressing: the first entry of a name, 0: none

cdef void _fill_statics() noexcept:
    cdef bytes name, value
    cdef Static *entry
    cdef int index = 0
    cdef uint8_t slot
    for name, value in STATIC_FIELDS:
        index += 1
        entry = &STATICS[index]
        entry.name = <const uint8_t *>PyBytes_AS_STRING(name)
        entry.name_len = PyBytes_GET_SIZE(name)
        entry.value = <const uint8_t *>PyBytes_AS_STRING(value)
        entry.value_len = PyBytes_GET_SIZE(value)
        entry.how = PLAIN if name in CHANGING else NEVER if name in SECRET else AUTO
        if name == b"cookie":
            entry.how = BY_SIZE
        if _find_static(entry.name, entry.name_len, _hash(entry.name, entry.name_len, 0)) == 0:
            slot = <uint8_t>_hash(entry.name, entry.name_len, 0)
            while FIRST_BY_NAME[slot]:
                slot += 1
            FIRST_BY_NAME[slot] = index


cdef int _find_static(const uint8_t *name, Py_ssize_t size, uint64_t hashed) noexcept:
    """The first entry with this name, or 0."""
    cdef uint8_t slot = <uint8_t>hashed
    cdef int index = FIRST_BY_NAME[slot]
    while index:
        if STATICS[index].name_len == size and memcmp(STATICS[index].name, name, size) == 0:
            return index
        slot += 1
        index = FIRST_BY_NAME[slot]
    return 0

_fill_statics()


cdef inline int _find_whole(int index, const uint8_t *value, Py_ssize_t size) noexcept:
    """The static entry with this value, among those with the name of `index`; or 0."""
    cdef const uint8_t *name = STATICS[index].name
    cdef Py_ssize_t name_len = STATICS[index].name_len
    while STATICS[index].value_len != size or memcmp(STATICS[index].value, value, size) != 0:
        index += 1
        if index > STATIC or STATICS[index].name_len != name_len or memcmp(STATICS[index].name, name, name_len) != 0:
            return 0
    return index


# ---------------------------------------------------------------------- dynamic table (section 2.3.2)

cdef inline Entry *_entry(Table *table, unsigned int age) noexcept:
    """The entry of this age, 1 is the newest; it must be there."""
    return &table.entries[(table.inserted - age) & (table.slots - 1)]


cdef inline const uint8_t *_text(Table *table, Entry *entry) noexcept:
    return table.data + <unsigned int>(entry.at - table.base)


cdef void _evict(Table *table, Py_ssize_t limit) noexcept:
    """Drop the oldest entries until the size is at most `limit`."""
    cdef Entry *entry
    while table.count and table.size > limit:
        entry = _entry(table, table.count)
        table.size -= 32 + <Py_ssize_t>entry.name_len + entry.value_len
        table.count -= 1


cdef int _more_slots(Table *table) except -1:
    cdef unsigned int slots = table.slots * 2 if table.slots else 16, age, number
    cdef Entry *entries = <Entry *>PyMem_Malloc(slots * sizeof(Entry))
    if entries == NULL:
        raise MemoryError
    for age in range(1, table.count + 1):
        number = table.inserted - age
        entries[number & (slots - 1)] = table.entries[number & (table.slots - 1)]
    PyMem_Free(table.entries)
    table.entries = entries
    table.slots = slots
    return 0


cdef int _keep_entry(Table *table, const uint8_t *name, Py_ssize_t name_len, const uint8_t *value,
                     Py_ssize_t value_len) except -1:
    """Add an entry; 0 when it is larger than the table, which is then empty. `name` may lie in the table."""
    cdef Py_ssize_t more = name_len + value_len, first, live, capacity
    cdef uint8_t *data = table.data
    cdef uint8_t *old = NULL
    cdef Entry *entry
    if more + 32 > table.limit:
        _evict(table, 0)
        return 0
    if table.count == table.slots:
        _more_slots(table)
    if data == NULL or more > table.capacity - table.end:
        # A quarter stays free, else small entries would move everything again and again.
        first = _text(table, _entry(table, table.count)) - data if table.count else table.end
        live = table.end - first
        capacity = table.capacity if table.capacity else 256
        while live + more > capacity - (capacity >> 2):
            capacity *= 2
        if capacity > table.capacity:
            old = data
            data = <uint8_t *>PyMem_Malloc(capacity)
            if data == NULL:
                raise MemoryError
            if live:
                memcpy(data, old + first, live)
            table.data = data
            table.capacity = capacity
        else:
            memmove(data, data + first, live)
            if data + first <= name < data + table.end:
                name -= first
        table.base += <unsigned int>first
        table.end = live
    memcpy(data + table.end, name, name_len)
    memcpy(data + table.end + name_len, value, value_len)
    PyMem_Free(old)
    _evict(table, table.limit - more - 32)
    entry = &table.entries[table.inserted & (table.slots - 1)]
    entry.at = table.base + <unsigned int>table.end
    entry.name_len = <unsigned int>name_len
    entry.value_len = <unsigned int>value_len
    table.end += more
    table.size += more + 32
    table.inserted += 1
    table.count += 1
    return 1


cdef void _close(Table *table) noexcept:
    PyMem_Free(table.data)
    PyMem_Free(table.entries)


# ---------------------------------------------------------------------- decoding

cdef class FieldSink:
    """What takes the fields of a block, one after the other."""

    cdef int field(self, const unsigned char *name, Py_ssize_t name_len, const unsigned char *value,
                   Py_ssize_t value_len, bint sensitive) except -1:
        raise NotImplementedError


@cython.final
cdef class _Collected(FieldSink):
    cdef list fields

    cdef int field(self, const unsigned char *name, Py_ssize_t name_len, const unsigned char *value,
                   Py_ssize_t value_len, bint sensitive) except -1:
        self.fields.append((name[:name_len], value[:value_len], bool(sensitive)))
        return 0


@cython.final
cdef class Decoder:
    """The blocks of one connection, in order."""

    def __init__(self, Py_ssize_t table_size=TABLE_SIZE):
        if not 0 <= table_size <= 0x7FFFFFFF:
            raise ValueError("table_size is not between 0 and 2^31 - 1")
        self.bound = self.table.limit = table_size

    def __dealloc__(self):
        _close(&self.table)
        PyMem_Free(self.scratch)

    cpdef int set_table_size(self, Py_ssize_t size) except -1:
        if not 0 <= size <= 0x7FFFFFFF:
            raise ValueError("size is not between 0 and 2^31 - 1")
        self.bound = size
        self.must_shrink = self.table.limit > size
        return 0

    def feed(self, bytes block not None):
        cdef _Collected sink = _Collected()
        sink.fields = []
        self.decode(<const unsigned char *>PyBytes_AS_STRING(block), PyBytes_GET_SIZE(block), sink)
        return sink.fields

    cdef int decode(self, const unsigned char *block, Py_ssize_t size, FieldSink sink) except -1:
        """Give the fields of a whole block to `sink`."""
        cdef const uint8_t *at = block
        cdef const uint8_t *end = block + size
        cdef Py_ssize_t index = 0
        cdef int updates = 0
        cdef Entry *entry
        while at < end and at[0] & 0xE0 == 0x20:
            updates += 1
            if updates > 2:
                refuse("hpack_size_update", 400)
            at = self._resize(at, end)
        if self.must_shrink:
            refuse("hpack_size_update", 400)
        if self.scratch_capacity < 2 * size:
            self._more_scratch(2 * size)
        while at < end:
            if at[0] & 0x80:
                at = _integer(at, end, 0x7F, &index)
                if 0 < index <= STATIC:
                    sink.field(STATICS[index].name, STATICS[index].name_len, STATICS[index].value,
                               STATICS[index].value_len, False)
                    continue
                if index == 0 or index > STATIC + <Py_ssize_t>self.table.count:
                    refuse("hpack_index", 400)
                entry = _entry(&self.table, <unsigned int>(index - STATIC))
                sink.field(_text(&self.table, entry), entry.name_len,
                           _text(&self.table, entry) + entry.name_len, entry.value_len, False)
            else:
                at = self._literal(at, end, sink)
        if self.scratch_capacity > 4096:
            self._more_scratch(0)
        return 0

    cdef int _more_scratch(self, Py_ssize_t capacity) except -1:
        PyMem_Free(self.scratch)
        self.scratch_capacity = 0
        self.scratch = NULL
        if capacity:
            capacity = max(capacity, 256)
            self.scratch = <unsigned char *>PyMem_Malloc(capacity)
            if self.scratch == NULL:
                raise MemoryError
            self.scratch_capacity = capacity
        return 0

    cdef const unsigned char *_resize(self, const unsigned char *at, const unsigned char *end) except NULL:
        cdef Py_ssize_t limit = 0
        at = _integer(at, end, 0x1F, &limit)
        if limit > self.bound:
            refuse("hpack_size_update", 400)
        self.must_shrink = False
        self.table.limit = limit
        _evict(&self.table, limit)
        return at

    cdef const unsigned char *_literal(self, const unsigned char *at, const unsigned char *end,
                                       FieldSink sink) except NULL:
        """A literal field (section 6.2); a size update behind the first field is refused."""
        cdef uint8_t first = at[0]
        cdef bint keep = first & 0x40
        cdef Py_ssize_t index = 0, used = 0, name_len = 0, value_len = 0
        cdef const uint8_t *name = NULL
        cdef const uint8_t *value = NULL
        cdef Entry *entry
        if not keep and first & 0x20:
            refuse("hpack_size_update", 400)
        at = _integer(at, end, 0x3F if keep else 0x0F, &index)
        if index == 0:
            at = self._string(at, end, &used, &name, &name_len)
        elif index <= STATIC:
            name = STATICS[index].name
            name_len = STATICS[index].name_len
        elif index <= STATIC + <Py_ssize_t>self.table.count:
            entry = _entry(&self.table, <unsigned int>(index - STATIC))
            name = _text(&self.table, entry)
            name_len = entry.name_len
        else:
            refuse("hpack_index", 400)
        at = self._string(at, end, &used, &value, &value_len)
        sink.field(name, name_len, value, value_len, first & 0xF0 == 0x10)
        if keep:
            _keep_entry(&self.table, name, name_len, value, value_len)
        return at

    cdef const unsigned char *_string(self, const unsigned char *at, const unsigned char *end, Py_ssize_t *used,
                                      const unsigned char **text, Py_ssize_t *size) except NULL:
        """A string (section 5.2), where it is or decoded into the scratch."""
        cdef bint coded
        cdef Py_ssize_t length = 0
        if at == end:
            refuse("hpack_truncated", 400)
        coded = at[0] & 0x80
        at = _integer(at, end, 0x7F, &length)
        if length > end - at:
            refuse("hpack_truncated", 400)
        text[0] = at
        size[0] = length
        if coded:
            text[0] = self.scratch + used[0]
            size[0] = _huffman_decode(at, length, self.scratch + used[0])
            if size[0] < 0:
                refuse("hpack_huffman", 400)
            used[0] += size[0]
        return at + length


# ---------------------------------------------------------------------- encoding

@cython.final
cdef class Encoder:
    """The blocks of one connection, in order."""

    def __init__(self, Py_ssize_t table_size=TABLE_SIZE):
        if table_size < 0:
            raise ValueError("table_size is below 0")
        self.most = min(table_size, TABLE_SIZE)
        self.table.limit = TABLE_SIZE
        self.smallest = -1
        self.set_table_size(TABLE_SIZE)

    def __dealloc__(self):
        _close(&self.table)

    cpdef int set_table_size(self, Py_ssize_t size) except -1:
        if size < 0:
            raise ValueError("size is below 0")
        size = min(size, self.most)
        if size != self.table.limit:
            self.smallest = size if self.smallest < 0 else min(size, self.smallest)
            self.table.limit = size
            _evict(&self.table, size)
        return 0

    def add(self, fields, int how=AUTO):
        cdef Block out = Block(NULL, 0, 0)
        cdef bytes name, value
        if not 0 <= how <= AUTO:
            raise ValueError("how is not a value of HOW")
        try:
            self.begin(&out)
            for name, value in fields:
                self.encode(&out, <const uint8_t *>PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name),
                            <const uint8_t *>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), how)
            return PyBytes_FromStringAndSize(<char *>out.data, out.size)
        finally:
            release(&out)

    cdef int begin(self, Block *out) except -1:
        """Tell the peer what became of the table's size since the last block (section 4.2)."""
        cdef uint8_t *to
        if self.smallest < 0:
            return 0
        reserve(out, 20)
        to = out.data + out.size
        if self.smallest < self.table.limit:
            to = _put_integer(to, 0x20, 0x1F, self.smallest)
        to = _put_integer(to, 0x20, 0x1F, self.table.limit)
        out.size = to - out.data
        self.smallest = -1
        return 0

    cdef Py_ssize_t encode(self, Block *out, const unsigned char *name, Py_ssize_t name_len,
                           const unsigned char *value, Py_ssize_t value_len, int how) except -1:
        """Append a field, its name in any case; the number of bytes it took."""
        cdef uint8_t *to
        cdef uint8_t *lower
        cdef uint64_t hashed
        cdef unsigned int pair_hash = 0, age = 0
        cdef int index, whole
        # A field of 30 bytes without its strings, 4 that the Huffman coder may write behind, and the name.
        reserve(out, 2 * name_len + value_len + 40)
        to = out.data + out.size
        lower = to + name_len + value_len + 40
        _lower(lower, name, name_len)
        hashed = _hash(lower, name_len, 0)
        index = _find_static(lower, name_len, hashed)
        if index and how != NEVER:
            whole = _find_whole(index, value, value_len)
            if whole:
                to[0] = 0x80 | whole
                out.size += 1
                return 1
        if how == AUTO and index:
            how = STATICS[index].how
            if how == BY_SIZE:
                how = NEVER if value_len < SHORT_COOKIE else AUTO
        if how == INDEX or how == AUTO:
            pair_hash = <unsigned int>(_hash(value, value_len, hashed) >> 16)
            age = self._pair(pair_hash, lower, name_len, value, value_len)
            if age:
                to = _put_integer(to, 0x80, 0x7F, STATIC + age)
                return self._done(out, to)
        if how == AUTO or not index:
            age = self._name(<unsigned int>(hashed >> 16), lower, name_len)
        if how == AUTO:
            how = self._is_likely(pair_hash, age, name_len + value_len + 32)
        if not index and age:
            index = STATIC + age
        if how == INDEX:
            to = _put_integer(to, 0x40, 0x3F, index)
        else:
            to = _put_integer(to, 0x10 if how == NEVER else 0, 0x0F, index)
        if not index:
            to = _put_string(to, lower, name_len)
        to = _put_string(to, value, value_len)
        if how == INDEX:
            self._keep(<unsigned int>(hashed >> 16), pair_hash, lower, name_len, value, value_len)
        return self._done(out, to)

    cdef inline Py_ssize_t _done(self, Block *out, uint8_t *to) noexcept:
        cdef Py_ssize_t taken = to - out.data - out.size
        out.size += taken
        return taken

    cdef inline int _is_likely(self, unsigned int pair_hash, unsigned int age, Py_ssize_t size) noexcept:
        """INDEX or PLAIN: a name's first value is kept, others when they came before, a large one never.

        So identifiers, dates and paths, new with every message, do not drive out what is repeated.
        """
        cdef unsigned int *seen = &self.seen[pair_hash % SEEN]
        if 2 * size > self.table.limit:
            return PLAIN
        if age == 0 or seen[0] == pair_hash:
            return INDEX
        seen[0] = pair_hash
        return PLAIN

    cdef unsigned int _pair(self, unsigned int pair_hash, const unsigned char *name, Py_ssize_t name_len,
                            const unsigned char *value, Py_ssize_t value_len) noexcept:
        """The age of the entry with this name and value, or 0."""
        cdef unsigned int number = self.pairs[pair_hash % BUCKETS], last = 0, age
        cdef Link *link
        cdef Entry *entry
        cdef const uint8_t *text
        while True:
            age = self.table.inserted - number + 1
            if age <= last or age > self.table.count:
                return 0
            link = &self.links[number % SLOTS]
            if link.pair_hash == pair_hash:
                entry = _entry(&self.table, age)
                text = _text(&self.table, entry)
                if (entry.name_len == name_len and entry.value_len == value_len
                        and memcmp(text, name, name_len) == 0 and memcmp(text + name_len, value, value_len) == 0):
                    return age
            last = age
            number = link.older_pair

    cdef unsigned int _name(self, unsigned int name_hash, const unsigned char *name, Py_ssize_t name_len) noexcept:
        """The age of the newest entry with this name, or 0."""
        cdef unsigned int number = self.names[name_hash % BUCKETS], last = 0, age
        cdef Link *link
        cdef Entry *entry
        while True:
            age = self.table.inserted - number + 1
            if age <= last or age > self.table.count:
                return 0
            link = &self.links[number % SLOTS]
            if link.name_hash == name_hash:
                entry = _entry(&self.table, age)
                if entry.name_len == name_len and memcmp(_text(&self.table, entry), name, name_len) == 0:
                    return age
            last = age
            number = link.older_name

    cdef int _keep(self, unsigned int name_hash, unsigned int pair_hash, const unsigned char *name,
                   Py_ssize_t name_len, const unsigned char *value, Py_ssize_t value_len) except -1:
        cdef Link *link
        if not _keep_entry(&self.table, name, name_len, value, value_len):
            return 0
        link = &self.links[self.table.inserted % SLOTS]
        link.name_hash = name_hash
        link.pair_hash = pair_hash
        link.older_name = self.names[name_hash % BUCKETS]
        link.older_pair = self.pairs[pair_hash % BUCKETS]
        self.names[name_hash % BUCKETS] = self.table.inserted
        self.pairs[pair_hash % BUCKETS] = self.table.inserted
        return 1
