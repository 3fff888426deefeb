"""The health service of gRPC: the question as grpcio reads it, and what each answer means."""

from __future__ import annotations

import pytest
from grpc_health.v1 import health_pb2

from sidecar.upstream import grpc_health
from sidecar.wire.head import Limits, ResponseHead

Status = health_pb2.HealthCheckResponse.ServingStatus
OK = b"grpc-status: 0\r\n"


def head(status: int = 200, fields: bytes = b"content-type: application/grpc\r\n") -> ResponseHead:
    made = ResponseHead(Limits(), b"POST")
    made.feed(b"HTTP/1.1 %d OK\r\n%bTransfer-Encoding: chunked\r\n\r\n" % (status, fields))
    return made


def framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


def answer(status: int) -> bytes:
    return framed(health_pb2.HealthCheckResponse(status=status).SerializeToString())


@pytest.mark.parametrize("service", ["", "a.b.Service", "s" * 200])
def test_the_question_is_what_grpcio_reads(service: str) -> None:
    data = grpc_health.request(service, "app:80", 2.5)
    lines, _, body = data.partition(b"\r\n\r\n")
    assert lines.startswith(b"POST /grpc.health.v1.Health/Check HTTP/1.1\r\nHost: app:80\r\n")
    assert b"grpc-timeout: 2500m" in lines
    assert body[:5] == b"\0" + (len(body) - 5).to_bytes(4, "big")
    assert health_pb2.HealthCheckRequest.FromString(body[5:]).service == service


def test_a_server_that_serves() -> None:
    assert grpc_health.trouble(head(), answer(Status.SERVING), b"x: y\r\nGRPC-Status: 0\r\n") == ""


@pytest.mark.parametrize(
    ("state", "text"),
    [(Status.UNKNOWN, "UNKNOWN"), (Status.NOT_SERVING, "NOT_SERVING"), (3, "SERVICE_UNKNOWN")],
)
def test_a_server_that_does_not(state: int, text: str) -> None:
    assert grpc_health.trouble(head(), answer(state), OK) == text


@pytest.mark.parametrize(
    ("answer_head", "body", "trailers", "text"),
    [
        (head(503), b"", b"", "503"),
        (head(fields=b"content-type: text/html\r\n"), b"", b"", "the answer is not gRPC"),
        (head(), b"", b"", "no grpc-status"),
        (head(), b"", b"grpc-status: 12\r\n", "grpc-status 12: there is no health service"),
        (
            head(fields=b"content-type: application/grpc+proto\r\ngrpc-status: 5\r\n"),
            b"",
            b"",
            "grpc-status 5: the service is not known",
        ),
        (head(), b"", b"grpc-status: 99\r\n", "grpc-status 99"),
        (head(), b"", OK, "the message cannot be read"),
        (head(), framed(b"\x08\x01")[:-1], OK, "the message cannot be read"),
        (head(), b"\1" + framed(b"\x08\x01")[1:], OK, "the message cannot be read"),
        (head(), framed(b"\x10\x01"), OK, "the message cannot be read"),
        (head(), framed(b"\x08\x07"), OK, "state 7"),
    ],
)
def test_answers_that_are_none(answer_head: ResponseHead, body: bytes, trailers: bytes, text: str) -> None:
    assert grpc_health.trouble(answer_head, body, trailers) == text
