"""Header compression: the RFC's own examples, the package `hpack` as the oracle, refusals, bounds."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable

import hpack
import pytest
from hpack.hpack import Encoder as OracleEncoder
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.errors import Malformed
from sidecar.wire.hpack import HOW, Decoder, Encoder

Pairs = list[tuple[bytes, bytes]]

EXAMPLES = settings(max_examples=200)
RULES = {
    "hpack_truncated",
    "hpack_integer_too_large",
    "hpack_index",
    "hpack_huffman",
    "hpack_size_update",
}

# ---------------------------------------------------------------------- RFC 7541 appendix C

REQUESTS = [
    [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")],
    [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b":authority", b"www.example.com"),
        (b"cache-control", b"no-cache"),
    ],
    [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":path", b"/index.html"),
        (b":authority", b"www.example.com"),
        (b"custom-key", b"custom-value"),
    ],
]
RESPONSES = [
    [
        (b":status", b"302"),
        (b"cache-control", b"private"),
        (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT"),
        (b"location", b"https://www.example.com"),
    ],
    [
        (b":status", b"307"),
        (b"cache-control", b"private"),
        (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT"),
        (b"location", b"https://www.example.com"),
    ],
    [
        (b":status", b"200"),
        (b"cache-control", b"private"),
        (b"date", b"Mon, 21 Oct 2013 20:13:22 GMT"),
        (b"location", b"https://www.example.com"),
        (b"content-encoding", b"gzip"),
        (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
    ],
]
C3 = [
    "828684410f7777772e6578616d706c652e636f6d",
    "828684be58086e6f2d6361636865",
    "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
]
C4 = [
    "828684418cf1e3c2e5f23a6ba0ab90f4ff",
    "828684be5886a8eb10649cbf",
    "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
]
C5 = [
    "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54"
    "6e1768747470733a2f2f7777772e6578616d706c652e636f6d",
    "4803333037c1c0bf",
    "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153"
    "444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
]
C6 = [
    "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
    "4883640effc1c0bf",
    "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960"
    "d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
]


@pytest.mark.parametrize(
    ("block", "field"),
    [
        ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", (b"custom-key", b"custom-header", False)),
        ("040c2f73616d706c652f70617468", (b":path", b"/sample/path", False)),
        ("100870617373776f726406736563726574", (b"password", b"secret", True)),
        ("82", (b":method", b"GET", False)),
    ],
    ids=["C.2.1", "C.2.2", "C.2.3", "C.2.4"],
)
def test_a_single_field_of_the_rfc(block: str, field: tuple[bytes, bytes, bool]):
    assert Decoder().feed(bytes.fromhex(block)) == [field]


@pytest.mark.parametrize(
    ("size", "blocks", "messages"),
    [(4096, C3, REQUESTS), (4096, C4, REQUESTS), (256, C5, RESPONSES), (256, C6, RESPONSES)],
    ids=["C.3", "C.4", "C.5", "C.6"],
)
def test_the_messages_of_the_rfc_are_read(size: int, blocks: list[str], messages: list[Pairs]):
    decoder = Decoder(size)
    for block, message in zip(blocks, messages, strict=True):
        assert decoder.feed(bytes.fromhex(block)) == [(*field, False) for field in message]


@pytest.mark.parametrize(
    ("size", "update", "blocks", "messages"),
    [(4096, "", C4, REQUESTS), (256, "3fe101", C6, RESPONSES)],
    ids=["C.4", "C.6"],
)
def test_the_messages_of_the_rfc_are_written(
    size: int, update: str, blocks: list[str], messages: list[Pairs]
):
    """But for 307, which is three bytes with Huffman's code and without it: we leave it alone."""
    encoder = Encoder(size)
    written = [encoder.add(message, HOW["index"]).hex() for message in messages]
    assert written == [update + blocks[0], *(block.replace("83640eff", "03333037") for block in blocks[1:])]


def test_the_integers_of_the_rfc():
    """C.1.1 and C.1.2, with the 5-bit prefix of a size update: 10 is taken, 1337 too, 1338 is above it."""
    Decoder(10).feed(bytes.fromhex("2a"))
    Decoder(1337).feed(bytes.fromhex("3f9a0a"))
    assert refusal(Decoder(1337), "3f9b0a") == "hpack_size_update"
    assert Encoder(1337).add([]).hex() == "3f9a0a"


# ---------------------------------------------------------------------- tables and code


def test_the_static_table_is_that_of_the_rfc():
    assert len(HeaderTable.STATIC_TABLE) == 61
    for index, field in enumerate(HeaderTable.STATIC_TABLE, 1):
        assert Decoder().feed(bytes([0x80 | index])) == [(*field, False)]
        assert Encoder().add([field]) == bytes([0x80 | index])
        assert Decoder().feed(bytes([0x40 | index, 1, 120])) == [(field[0], b"x", False)]


def test_every_symbol_and_every_pair_is_coded_as_in_the_rfc():
    oracle = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
    texts = [bytes([symbol]) for symbol in range(256)]
    texts += [
        bytes([first, second]) * 3
        for first in range(256)
        for second in (0, 48, 97, 127, 200, 249, 255, first)
    ]
    for text in texts:
        coded = oracle.encode(text)
        block = b"\x00\x01x" + length(len(coded), 0x80) + coded
        assert Decoder().feed(block) == [(b"x", text, False)]
        written = Encoder().add([(b"x", text)], HOW["plain"])
        assert written == (block if len(coded) < len(text) else b"\x00\x01x" + length(len(text), 0) + text)


def test_two_bytes_of_huffman_code_are_read_or_refused_as_the_oracle_does():
    for coded in (bytes([first, second]) for first in range(256) for second in range(256)):
        try:
            expected = bytes(decode_huffman(coded))
        except hpack.HPACKDecodingError:
            expected = None
        try:
            read = Decoder().feed(b"\x00\x01x\x82" + coded)[0][1]
        except Malformed as error:
            assert error.rule == "hpack_huffman"
            read = None
        assert read == expected


def length(size: int, flag: int) -> bytes:
    """The length of a string, as RFC 7541 section 5.1 writes it behind a prefix of 7 bits."""
    if size < 127:
        return bytes([flag | size])
    rest = size - 127
    out = [flag | 127]
    while rest >= 128:
        out.append(rest & 127 | 128)
        rest >>= 7
    return bytes([*out, rest])


# ---------------------------------------------------------------------- what an encoder chooses


def choices(fields: Pairs, how: str = "auto") -> str:
    """How each field of a first block was coded: i(ndex), k(ept), p(lain) or n(ever)."""
    encoder = Encoder()
    return "".join(kind(encoder.add([field], HOW[how])[0]) for field in fields)


def kind(first: int) -> str:
    if first & 0x80:
        return "i"
    if first & 0x40:
        return "k"
    return "n" if first & 0x10 else "p"


def test_a_repeated_message_costs_a_byte_per_field():
    message = [
        (b":status", b"200"),
        (b"Content-Type", b"text/html; charset=utf-8"),
        (b"X-Frame-Options", b"DENY"),
        (b"x-frame-options", b"DENY"),
        (b"Server", b""),
    ]
    encoder = Encoder()
    encoder.add(message)
    assert len(encoder.add(message)) == len(message)


def test_names_are_sent_in_lower_case_and_only_ascii_letters_change():
    every = bytes(range(256))
    [(name, value, _)] = Decoder().feed(Encoder().add([(every, every)]))
    assert (name, value) == (every.lower(), every)
    for size in range(1, 40):
        [(name, value, _)] = Decoder().feed(Encoder().add([(b"X-Ab@[Z" * 6, b"X"), (b"Q" * size, b"Y")])[0:])[
            1:
        ]
        assert (name, value) == (b"q" * size, b"Y")


def test_secrets_are_never_indexed_and_told_to_be():
    secrets = [
        (b"Authorization", b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        (b"proxy-authorization", b"Basic x"),
        (b"cookie", b"pin=1234"),
    ]
    encoder = Encoder()
    first = encoder.add(secrets)
    assert choices(secrets) == "nnn"
    assert encoder.add(secrets) == first
    assert all(sensitive for _, _, sensitive in Decoder().feed(first))


def test_a_field_can_be_told_never_to_be_indexed_though_the_tables_have_it():
    encoder = Encoder()
    encoder.add([(b"x-token", b"abc")], HOW["index"])
    for field in [(b"x-token", b"abc"), (b":method", b"GET")]:
        assert Decoder().feed(Encoder().add([field], HOW["never"])) == [(*field, True)]
        assert kind(encoder.add([field], HOW["never"])[0]) == "n"


def test_a_long_cookie_is_kept():
    assert choices([(b"cookie", b"session=0123456789abcdef")] * 2) == "ki"


def test_values_that_change_with_every_message_are_not_kept():
    for name in (b"Content-Length", b"age", b"range", b"content-range", b"set-cookie"):
        assert choices([(name, b"12345")] * 3) == "ppp"


def test_a_second_value_is_kept_when_it_comes_again():
    """Identifiers do not drive out what is repeated; a path that is asked for again is."""
    assert choices([(b":path", b"/a"), (b":path", b"/b"), (b":path", b"/b"), (b":path", b"/b")]) == "kpki"
    encoder = Encoder()
    encoder.add([(b"x-always", b"the same")])
    for number in range(500):
        encoder.add([(b"x-request-id", b"%032x" % number)])
    assert len(encoder.add([(b"x-always", b"the same")])) == 1


def test_a_field_that_would_take_half_the_table_is_not_kept():
    assert choices([(b"x", b"?" * 3000)] * 2) == "pp"
    assert choices([(b"x", b"?" * 2000)] * 2) == "ki"


def test_a_field_larger_than_the_table_empties_it():
    """RFC 7541 section 4.4: that is no error."""
    encoder, decoder = Encoder(), Decoder()
    message = [(b"a", b"1"), (b"b", b"2" * 5000), (b"a", b"1")]
    block = encoder.add(message, HOW["index"])
    assert [field[:2] for field in decoder.feed(block)] == message
    assert refusal(decoder, "bf") == "hpack_index"
    assert [field[:2] for field in decoder.feed(b"\xbe")] == [(b"a", b"1")]


def test_the_peer_hears_of_the_smallest_and_of_the_last_size():
    """RFC 7541 section 4.2; what does not change is not told."""
    encoder = Encoder()
    encoder.set_table_size(4096)
    encoder.set_table_size(65536)
    assert encoder.add([]) == b""
    for size in (100, 0, 10, 20):
        encoder.set_table_size(size)
    assert encoder.add([]).hex() == "2034"
    assert encoder.add([]) == b""
    encoder.set_table_size(4)
    assert encoder.add([]).hex() == "24"


@pytest.mark.parametrize("size", [-1, -(2**40)])
def test_a_negative_size_is_an_error_of_the_caller(size: int):
    for wrong in (Encoder, Decoder, Encoder().set_table_size, Decoder().set_table_size):
        with pytest.raises(ValueError):
            wrong(size)


def test_an_unknown_how_is_an_error_of_the_caller():
    for how in (-1, 4):
        with pytest.raises(ValueError):
            Encoder().add([], how)


# ---------------------------------------------------------------------- refusals


def refusal(decoder: Decoder, block: str) -> str:
    with pytest.raises(Malformed) as caught:
        decoder.feed(bytes.fromhex(block))
    return caught.value.rule


@pytest.mark.parametrize(
    ("block", "rule"),
    [
        ("40", "hpack_truncated"),  # no name
        ("4001", "hpack_truncated"),  # a name that is not there
        ("400178", "hpack_truncated"),  # no value
        ("40017802", "hpack_truncated"),  # a value that is not there
        ("4001780279", "hpack_truncated"),
        ("0f", "hpack_truncated"),  # an index that goes on
        ("ff", "hpack_truncated"),
        ("ff80", "hpack_truncated"),
        ("0082ff", "hpack_truncated"),  # Huffman code that is not there
        ("007f", "hpack_truncated"),  # a length that goes on
        ("3f", "hpack_truncated"),  # a size update that goes on
        ("ff808080808001", "hpack_integer_too_large"),  # six bytes
        ("ff808080808000", "hpack_integer_too_large"),
        ("ff81ffffff07", "hpack_integer_too_large"),  # 2^31
        ("007f81ffffff07", "hpack_integer_too_large"),
        ("3fe1ffffff07", "hpack_integer_too_large"),
        ("ff80ffffff07", "hpack_index"),  # 2^31 - 1
        ("80", "hpack_index"),
        ("be", "hpack_index"),  # 62, and the table is empty
        ("7e0178", "hpack_index"),
        ("0f2f0178", "hpack_index"),
        ("4001780179bf", "hpack_index"),  # 63, and there is one entry
        ("000178" "84ffffffff", "hpack_huffman"),  # EOS
        ("000178" "8207ff", "hpack_huffman"),  # 11 bits of padding
        ("000178" "81ff", "hpack_huffman"),  # nothing but padding
        ("000178" "8100", "hpack_huffman"),  # padding of zeros
        ("000178" "8106", "hpack_huffman"),
        ("000178" "82fffe", "hpack_huffman"),  # a code that is cut
        ("00" "81ff0178", "hpack_huffman"),  # the same in a name
        ("3fe21f", "hpack_size_update"),  # 4097
        ("8220", "hpack_size_update"),  # behind a field
        ("202020", "hpack_size_update"),  # the third
    ],
)  # fmt: skip
def test_what_is_refused(block: str, rule: str):
    assert refusal(Decoder(), block) == rule


def test_the_largest_that_is_taken():
    assert Decoder().feed(bytes.fromhex("20" "3fe11f")) == []  # fmt: skip
    assert Decoder(2**31 - 1).feed(bytes.fromhex("3fe0ffffff07")) == []
    assert Decoder().feed(bytes.fromhex("000178" "8107")) == [(b"x", b"0", False)]  # fmt: skip
    assert Decoder().feed(bytes.fromhex("0000" "80")) == [(b"", b"", False)]  # fmt: skip


def test_a_table_that_was_made_smaller_must_be_acknowledged_by_the_next_block():
    decoder = Decoder()
    decoder.set_table_size(100)
    assert refusal(decoder, "82") == "hpack_size_update"
    decoder = Decoder()
    decoder.set_table_size(100)
    assert decoder.feed(bytes.fromhex("3f4582")) == [(b":method", b"GET", False)]
    assert decoder.feed(bytes.fromhex("82")) == [(b":method", b"GET", False)]
    assert refusal(decoder, "3f46") == "hpack_size_update"
    decoder.set_table_size(101)
    assert decoder.feed(bytes.fromhex("3f46")) == []


def test_a_smaller_table_forgets_the_oldest():
    decoder = Decoder()
    decoder.feed(bytes.fromhex("4001610131" "4001620132"))  # fmt: skip
    assert decoder.feed(bytes.fromhex("3f03be")) == [(b"b", b"2", False)]
    assert refusal(decoder, "bf") == "hpack_index"


def test_an_entry_may_take_the_name_of_one_it_drives_out():
    """RFC 7541 section 4.4, at every offset of the table's bytes."""
    decoder, name = Decoder(200), b"name-of-some-length"
    decoder.feed(b"\x40" + bytes([len(name)]) + name + b"\x01v")
    for number in range(2000):
        value = b"%d" % number * (number % 21)
        fields = decoder.feed(b"\x7e" + length(len(value), 0) + value + b"\xbe")
        assert fields == [(name, value, False)] * 2


# ---------------------------------------------------------------------- against the oracle

names = st.sampled_from(
    [b":path", b"accept", b"cookie", b"x-a", b"x-b", b"x-request-id", b"via"]
) | st.binary(min_size=1, max_size=40).map(bytes.lower)
values = st.sampled_from([b"", b"/", b"1", b"gzip, deflate", b"no-cache"]) | st.binary(max_size=60)
huge = st.integers(100, 2500).map(lambda size: b"v\xfe" * size)
fields = st.tuples(names, values | values | values | huge)
sizes = st.none() | st.sampled_from([0, 31, 32, 33, 64, 100, 300, 1000, 4095, 4096])
blocks = st.lists(
    st.tuples(sizes, st.lists(st.tuples(fields, st.sampled_from(sorted(HOW))), max_size=12)), max_size=12
)


@given(blocks)
@EXAMPLES
def test_what_we_write_the_oracle_reads(
    messages: list[tuple[int | None, list[tuple[tuple[bytes, bytes], str]]]],
):
    encoder, ours, oracle = Encoder(), Decoder(), hpack.Decoder(max_header_list_size=2**30)
    for size, message in messages:
        if size is not None:
            encoder.set_table_size(size)
            ours.set_table_size(size)
            oracle.max_allowed_table_size = size
        block = b"".join([encoder.add([field], HOW[how]) for field, how in message]) or encoder.add([])
        sent = [field for field, _ in message]
        assert [tuple(field) for field in oracle.decode(block, raw=True)] == sent
        assert [field[:2] for field in ours.feed(block)] == sent


@given(blocks, st.booleans())
@EXAMPLES
def test_what_the_oracle_writes_we_read(
    messages: list[tuple[int | None, list[tuple[tuple[bytes, bytes], str]]]], huffman: bool
):
    encoder, decoder = OracleEncoder(), Decoder()
    for size, message in messages:
        if size is not None:
            encoder.header_table_size = size
            decoder.set_table_size(size)
        read = decoder.feed(encoder.encode([(*field, how == "never") for field, how in message], huffman))
        assert [field[:2] for field in read] == [field for field, _ in message]
        # It takes the index of what a table has whole, for a sensitive field too.
        assert not any(field[2] and how != "never" for field, (_, how) in zip(read, message, strict=True))


def judged(decode: Callable[[bytes], Pairs], block: bytes) -> Pairs | None:
    try:
        return decode(block)
    except (Malformed, hpack.HPACKError) as error:
        assert not isinstance(error, Malformed) or error.rule in RULES
        return None


def test_random_bytes_are_judged_as_the_oracle_judges_them():
    """It has no bound for integers and no rule for a third size update; those two alone differ."""
    chance = random.Random(7541)
    accepted = 0
    for _ in range(20000):
        block = bytes(chance.choices(range(256), k=chance.randrange(1, 12)))
        if chance.random() < 0.5:
            coded = chance.randbytes(chance.randrange(6))
            block = b"\x40\x01x" + bytes([0x80 | len(coded)]) + coded + bytes([0xBE]) * chance.randrange(3)
        oracle = hpack.Decoder(max_header_list_size=2**30)
        expected = judged(lambda b, d=oracle: [tuple(f) for f in d.decode(b, raw=True)], block)
        try:
            read = [field[:2] for field in Decoder().feed(block)]
        except Malformed as error:
            assert error.rule in RULES
            if error.rule == "hpack_integer_too_large" or sum(byte >> 5 == 1 for byte in block[:3]) == 3:
                continue
            read = None
        assert read == expected, block.hex()
        accepted += read is not None
    assert accepted > 1000


def test_a_damaged_conversation_is_read_or_refused_and_takes_bounded_memory():
    """Blocks with flipped bits, cut and joined, through decoders that live on: no crash, no growth."""
    chance = random.Random(9113)
    encoder = Encoder()
    whole = [
        encoder.add(
            [(b"x-%d" % chance.randrange(30), chance.randbytes(chance.randrange(80))) for _ in range(8)]
        )
        for _ in range(300)
    ]
    decoder = Decoder()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(20000):
            block = bytearray(chance.choice(whole))
            for _ in range(chance.randrange(4)):
                block[chance.randrange(len(block))] ^= 1 << chance.randrange(8)
            judged(decoder.feed, bytes(block[: chance.randrange(len(block) + 1)] + block[:5]))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 64 * 1024


def test_a_large_block_leaves_no_large_buffer_behind():
    block = Encoder().add([(b"x", b"a" * 60000)])
    decoder = Decoder()
    tracemalloc.start()
    try:
        decoder.feed(block)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 16 * 1024
    assert peak < 512 * 1024
