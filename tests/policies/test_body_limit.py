from __future__ import annotations

from typing import Any

import pytest

from sidecar.errors import Failure
from sidecar.message import Request, Response
from sidecar.policies.body_limit import BodyLimit
from sidecar.routing.settings import RouteSettings
from sidecar.wire.head import Limits, RequestHead, ResponseHead


class FakeBody:
    """A body that is as large as it says."""

    def __init__(self, size: int) -> None:
        self.size = size

    def bound(self, limit: int) -> None:
        if self.size > limit:
            raise Failure("request_body_too_large")


def status(policy: BodyLimit | None, body: Any) -> int:
    head = RequestHead(Limits())
    head.feed(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n")
    asked = Request(head, "/", "192.0.2.1", "http", "public")
    asked.body = body
    assert policy is not None
    return policy.handle(asked, lambda request: Response(ResponseHead.make(200, []))).head.status


def test_off_is_no_policy() -> None:
    assert BodyLimit.of(RouteSettings()) is None


@pytest.mark.parametrize("body", [None, FakeBody(0), FakeBody(10)])
def test_a_body_within_the_bound_passes(body: FakeBody | None) -> None:
    assert status(BodyLimit.of(RouteSettings(max_body_size=10)), body) == 200


def test_a_larger_body_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(Failure, match="request_body_too_large"):
        status(BodyLimit.of(RouteSettings(max_body_size=10)), FakeBody(11))
