"""The client of `openssl s_client`, and what it says of a connection."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import Final

from tests.support.programs import program

_PATIENCE: Final = 20.0
_ASKED: Final = b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, repr=False)
class Said:
    """All that it printed. What was not agreed upon is empty."""

    status: int
    text: str

    def _find(self, pattern: str) -> str:
        found = re.search(pattern, self.text, re.MULTILINE)
        return found[1].strip() if found else ""

    @property
    def subject(self) -> str:
        """The common name of the server's certificate."""
        return self._find(r"^subject=CN ?= ?(.*)$")

    @property
    def kind(self) -> str:
        """What the server's certificate is good for: RSA-PSS, RSA or ECDSA."""
        return self._find(r"^Peer signature type: (.*)$")

    @property
    def version(self) -> str:
        """TLSv1.2, TLSv1.3."""
        return self._find(r"^(?:New|Reused), (TLSv[0-9.]+), Cipher is ")

    @property
    def is_reused(self) -> bool:
        """Whether a session was resumed."""
        return bool(self._find(r"^(Reused), TLS"))

    @property
    def alpn(self) -> str:
        """The protocol that was agreed upon."""
        return self._find(r"^ALPN protocol: (.*)$")

    @property
    def alert(self) -> str:
        """The fatal alert that came."""
        return self._find(r"(?:tlsv1 |sslv3 |tlsv13 )?alert ([a-z][a-z ]*):")

    @property
    def is_verified(self) -> bool:
        """Whether it believes the certificate."""
        return bool(self._find(r"^Verify return code: 0 \((ok)\)") or self._find(r"^Verification: (OK)"))

    @property
    def body(self) -> str:
        """What came after the head of an answer."""
        return self.text.partition("\r\n\r\n")[2]

    @property
    def is_ended_well(self) -> bool:
        """Whether the server said that it was the end (close_notify)."""
        return self.status == 0 and "closed\n" in self.text and "unexpected eof" not in self.text

    def __repr__(self) -> str:
        return f"status {self.status}, {self.text[-1000:]}"


def s_client(port: int, *options: str, send: bytes = _ASKED) -> Said:
    """Connect, send, and read until the server closes; `-servername` is localhost unless options say else."""
    words = [program("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-ign_eof"]
    if "-servername" not in options and "-noservername" not in options:
        words += ["-servername", "localhost"]
    done = subprocess.run([*words, *options], input=send, capture_output=True, timeout=_PATIENCE)
    return Said(done.returncode, (done.stdout + done.stderr).decode("latin-1"))
