# cython: language_level=3, annotation_typing=False
"""Calls of gRPC on their way to an upstream that speaks HTTP/2; what is no call passes by.

Law: a call may be silent for as long as a tunnel may, and ends when the time is over that its client gave it
(grpc-timeout). Its first messages are kept as they pass, so that a server that refuses it costs nothing.
"""

from __future__ import annotations

from typing import Final

from ..errors import Failure
from ..message import Request, Response
from ..wire.grpc import is_call, timeout
from .forward import Forward
from .relay import Relay

#: Seconds; shorter bounds would be none.
_LEAST: Final = 0.001


class Calls:
    """Answers from `forward`. `kept`: bytes of a call's messages that are kept."""

    __slots__ = ("_calls", "_forward", "_kept")

    def __init__(self, forward: Forward, kept: int) -> None:
        self._forward = forward
        self._calls = forward.for_calls(0.0)
        self._kept = kept

    def __call__(self, request: Request) -> Response:
        """Answer `request` from a server. Raises Failure; Malformed when its grpc-timeout is none."""
        head = request.head
        if not is_call(head.get(b"content-type")):
            return self._forward(request)
        forward = self._calls
        value = head.get(b"grpc-timeout")
        if value is not None:
            seconds = timeout(value)
            if not seconds:
                raise Failure("response_timeout", "the time of the call was over when it came")
            forward = self._forward.for_calls(max(seconds, _LEAST))
        if request.body is not None:
            request.body.keep(self._kept)
        response = forward(request)
        body = response.body
        if type(body) is Relay:
            body.call = request
        return response
