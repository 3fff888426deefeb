"""One line of a log, put together in place."""

class Line:
    """A buffer that is filled for one line and taken; it is kept for the next."""

    def text(self, text: str) -> None:
        """Add text as UTF-8. Raises UnicodeEncodeError for lone surrogates."""
    def number(self, number: int) -> None:
        """Add a whole number."""
    def millis(self, seconds: float) -> None:
        """Add seconds as milliseconds with three decimals, cut off."""
    def plain(self, data: bytes, longest: int) -> bool:
        """Add bytes as a JSON string if they need no escape and are `longest` at most; else add nothing."""
    def take(self) -> bytes:
        """What was added; the line is empty then."""
