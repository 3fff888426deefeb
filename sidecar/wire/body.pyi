"""Bodies as they travel (RFC 9112 section 6 and 7): chunked decoding, strict."""

class ChunkedDecoder:
    """Takes chunked bytes, gives back the data; strict RFC 9112 section 7.1.

    Extensions are bounded, each and together, and dropped unread; control bytes in them are refused.

    Rules raised as Malformed: bad_chunk_size, chunk_size_overflow, chunk_extension_too_long, bad_chunk_end,
    bad_trailer, trailer_too_large (and the field rules of heads: bare_lf, bare_cr, obs_fold, …).
    """

    done: bool
    def __init__(self, max_extension: int = 1024, max_trailer: int = 8192) -> None: ...
    def feed(self, data: bytes) -> tuple[bytes, int]:
        """(data decoded, number of bytes consumed). Stops after the end of the trailer section (`done`)."""
    @property
    def trailers(
        self,
    ) -> list[tuple[bytes, bytes]]: ...  # fields that must not be merged or forwarded are dropped
