"""Variables are expanded once, and what is not a variable is left alone or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.environment import Environment, escape

VARIABLES = {"HOST": "app", "EMPTY": "", "DOLLAR": "${HOST}", "LIST": "a\nb", "NUL": "a\x00", "RAW": "\udcff"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("plain", "plain"),
        ("${HOST}:80", "app:80"),
        ("${PORT:-8080}", "8080"),
        ("${HOST:-other}", "app"),
        ("${EMPTY:-other}", "other"),
        ("${EMPTY}", ""),
        ("${PORT:-}", ""),
        ("${PORT:-{host}}", "{host}"),
        ("${DOLLAR}", "${HOST}"),
        ("${LIST}", "a\nb"),
        ("$${HOST}", "${HOST}"),
        ("$$$$", "$$"),
        ("^/(.*)$ /$1", "^/(.*)$ /$1"),
    ],
)
def test_expansion(text: str, expanded: str) -> None:
    assert Environment(VARIABLES).expand(text) == expanded


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${PORT}", "the variable PORT is not set: set it, or write ${PORT:-default}"),
        ("${HOST", "'${' has no '}': write ${NAME} or ${NAME:-default}, or $${ for the characters"),
        ("${}", "'${}' is not a variable: write ${NAME} or ${NAME:-default}"),
        ("${1}", "'${1}' is not a variable: write ${NAME} or ${NAME:-default}"),
        ("${HOST-x}", "'${HOST-x}' is not a variable: write ${NAME} or ${NAME:-default}"),
        ("${NUL}", "the variable NUL holds a control character or is not UTF-8: clean it"),
        ("${RAW}", "the variable RAW holds a control character or is not UTF-8: clean it"),
    ],
)
def test_mistakes(text: str, message: str) -> None:
    with pytest.raises(ValueError) as refused:
        Environment(VARIABLES).expand(text)
    assert str(refused.value) == message


def test_variables_that_were_asked_for_are_remembered() -> None:
    environment = Environment(VARIABLES)
    environment.expand("${HOST}${PORT:-1}")
    assert environment.used == {"HOST": "app", "PORT": None}


@given(st.text())
def test_escaped_text_expands_to_itself(text: str) -> None:
    assert Environment({}).expand(escape(text)).strip() == text.strip()
