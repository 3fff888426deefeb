"""The functions of OpenSSL: found in what Python has loaded, and only when somebody wants TLS."""

from __future__ import annotations

import ssl
import subprocess
import sys

from sidecar.net import openssl


def test_it_is_the_library_that_python_uses() -> None:
    assert openssl.version() == ssl.OPENSSL_VERSION


def test_the_library_is_mapped_once() -> None:
    with open("/proc/self/maps") as maps:
        found = {line.split()[-1] for line in maps if "/libssl" in line}
    assert len(found) <= 1


def test_python_without_openssl_is_told_in_a_sentence() -> None:
    """A module that stands for `_ssl`, in a file that is no library."""
    code = (
        "import sys, types; sys.modules['_ssl'] = module = types.ModuleType('_ssl')\n"
        "module.__file__ = '/dev/null'\n"
        "from sidecar.errors import TlsError\n"
        "try:\n    import sidecar.net.openssl\nexcept TlsError as error:\n    print(error)\n"
    )
    assert _run(code) == "TLS is not available: Python's module _ssl cannot be opened\n"


def test_a_library_without_the_functions_is_told_in_a_sentence() -> None:
    code = (
        "import sys, types; sys.modules['_ssl'] = module = types.ModuleType('_ssl')\n"
        "import mmap; module.__file__ = mmap.__file__\n"
        "from sidecar.errors import TlsError\n"
        "try:\n    import sidecar.net.openssl\nexcept TlsError as error:\n    print(error)\n"
    )
    assert _run(code).startswith("TLS needs OpenSSL 3.0 or later: Python's has no function ")


def test_whoever_has_no_use_for_tls_does_not_load_it() -> None:
    code = (
        "import sys, sidecar.session, sidecar.app\n"
        "print([name for name in sys.modules if name.startswith('sidecar.net.') and 'openssl' in name])"
    )
    assert _run(code) == "[]\n"


def _run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
