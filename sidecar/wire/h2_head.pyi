"""Heads of HTTP/2 messages to HTTP/1.1 heads and back (RFC 9113 section 8); used by compiled code alone."""

from .head import Limits

class HeadBuilder:
    """Takes the fields of one block after the other; gives the head or the trailer lines of each."""

    broken: str  # the rule that the message breaks; "" while it breaks none
    refusal: int  # the status that goes with it
    length: int  # Content-Length; -1: not there
    code: int  # of a response
    is_connect: bool  # extended CONNECT for a WebSocket
    def __init__(self, limits: Limits) -> None: ...
