"""What can go wrong with an exchange: one small tree, every leaf with a stable reason.

A failure knows its HTTP status, its blame and its RFC 9209 error type. It travels as an exception
and becomes a response in one place, `respond`. Reasons are names people alert on: add, never rename.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Blame = Literal["client", "proxy", "upstream"]


class Verdict(NamedTuple):
    """What a reason means to the client and to the log."""

    status: int
    blame: Blame
    proxy_error: str  # RFC 9209 section 2.3, the `error` parameter of Proxy-Status


#: reason → verdict. Malformed messages are refused by wire rules; they all share `malformed_*`.
REASONS: Final[dict[str, Verdict]] = {
    "malformed_request": Verdict(400, "client", "http_request_error"),
    "request_timeout": Verdict(408, "client", "http_request_error"),
    "request_body_timeout": Verdict(408, "client", "http_request_error"),
    "request_body_too_large": Verdict(413, "client", "http_request_denied"),
    "misdirected_request": Verdict(421, "client", "http_request_denied"),
    "client_gone": Verdict(499, "client", "connection_terminated"),
    "client_write_timeout": Verdict(499, "client", "connection_write_timeout"),
    "no_route": Verdict(404, "proxy", "destination_not_found"),
    "descriptors_exhausted": Verdict(503, "proxy", "connection_limit_reached"),
    "tls_handshake_failed": Verdict(400, "client", "tls_protocol_error"),
    "plain_http": Verdict(400, "client", "http_request_error"),
    "tls_verify": Verdict(502, "upstream", "tls_certificate_error"),
    "tls_failed": Verdict(502, "upstream", "tls_protocol_error"),
    "tls_alert": Verdict(502, "upstream", "tls_alert_received"),
    "not_http2": Verdict(502, "upstream", "http_protocol_error"),
    "tls_timeout": Verdict(504, "upstream", "connection_timeout"),
    "dns_error": Verdict(502, "upstream", "dns_error"),
    "connection_refused": Verdict(502, "upstream", "connection_refused"),
    "connection_failed": Verdict(502, "upstream", "destination_unavailable"),
    "connection_timeout": Verdict(504, "upstream", "connection_timeout"),
    "connection_terminated": Verdict(502, "upstream", "connection_terminated"),
    "upstream_write_timeout": Verdict(504, "upstream", "connection_write_timeout"),
    "upstream_read_timeout": Verdict(504, "upstream", "connection_read_timeout"),
    "response_timeout": Verdict(504, "upstream", "http_response_timeout"),
    "malformed_response": Verdict(502, "upstream", "http_protocol_error"),
    "response_incomplete": Verdict(502, "upstream", "http_response_incomplete"),
    "upgrade_failed": Verdict(502, "upstream", "http_upgrade_failed"),
    "no_server": Verdict(503, "upstream", "destination_unavailable"),
    "upstream_overloaded": Verdict(503, "upstream", "connection_limit_reached"),
    "stream_refused": Verdict(503, "upstream", "connection_limit_reached"),
    "circuit_open": Verdict(503, "upstream", "destination_unavailable"),
    "internal_error": Verdict(500, "proxy", "proxy_internal_error"),
}


class SidecarError(Exception):
    """The root of everything this project raises on purpose."""


class Malformed(SidecarError):
    """A message that breaks the grammar; raised by `wire`, which does not know whose message it is.

    `rule` is the stable name of the broken rule (`bare_lf`, `obs_fold`, `te_with_cl`, …), `status` what a
    client gets when the message is a request (400, 405, 414, 431, 501 or 505).
    """

    def __init__(self, rule: str, status: int = 400) -> None:
        super().__init__(rule)
        self.rule = rule
        self.status = status


class Failure(SidecarError):
    """An exchange that cannot go on as the client asked. `reason` is a key of REASONS."""

    def __init__(
        self,
        reason: str,
        detail: str = "",
        *,
        status: int = 0,
        repeatable: bool = False,
        retry_after: int = 1,
    ) -> None:
        super().__init__(reason, detail)
        verdict = REASONS[reason]
        self.reason = reason
        self.detail = detail  # for the log, never for the client
        self.status = status or verdict.status
        self.blame: Blame = verdict.blame
        self.proxy_error = verdict.proxy_error
        self.retry_after = retry_after  # seconds, for a 503
        self.repeatable = repeatable  # True only when the upstream provably did not act on the request

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


class ConfigurationError(SidecarError):
    """A configuration that cannot be served; carries every mistake, each a whole line for the user."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class TlsError(SidecarError):
    """Certificates, keys or options that TLS cannot use, told to the one who wrote them.

    `option` is what it is about (certificate, key, client_ca, client_crl, ciphers; empty: TLS itself),
    `number` which of several, from 0.
    """

    def __init__(self, text: str, option: str = "", number: int = 0) -> None:
        super().__init__(text)
        self.option = option
        self.number = number


class Broken(SidecarError):
    """Bytes that could not be moved. `side` is the end that failed, `what` how."""

    def __init__(
        self, side: Literal["source", "sink"], what: Literal["ended", "reset", "timeout", "too_large"]
    ):
        super().__init__(side, what)
        self.side = side
        self.what = what
