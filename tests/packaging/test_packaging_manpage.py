"""The manual page: every command, signal and option, in roff that no formatter complains about."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from sidecar import __version__
from sidecar.config.schema import header, options
from sidecar.observe.events import EVENTS
from sidecar.observe.metrics import METRICS
from sidecar.settings import SECTIONS
from tests.support.live import ROOT
from tests.support.programs import program


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page as the package has it, but not compressed."""
    done = subprocess.run(
        [sys.executable, ROOT / "packaging/manpage.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
    )
    file = tmp_path_factory.mktemp("man") / "sidecar.8"
    file.write_bytes(done.stdout)
    return file


def formatted(page: Path) -> str:
    """What a reader sees, on a wide terminal."""
    done = subprocess.run(
        [program("groff", "groff"), "-man", "-Tutf8", "-rLL=400n", "-P-c", "-P-b", "-P-u", page],
        capture_output=True,
        text=True,
    )
    return done.stdout


@pytest.mark.parametrize("device", ["utf8", "ascii", "ps"])
def test_page_is_formatted_without_a_warning(page: Path, device: str) -> None:
    """Unknown requests, characters and fonts would be told."""
    done = subprocess.run(
        [program("groff", "groff"), "-man", "-ww", "-z", f"-T{device}", page], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_man_shows_it(page: Path) -> None:
    """As a file, in a narrow terminal, without a warning."""
    done = subprocess.run(
        [program("man", "man-db"), "--warnings", "--local-file", page],
        env={**os.environ, "MANWIDTH": "60", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "SIDECAR(8)" in done.stdout
    assert f"sidecar {__version__}" in done.stdout


def test_page_has_its_name_in_the_form_that_indexes_want(page: Path) -> None:
    assert re.search(r"^\.SH NAME\nsidecar \\- \S", page.read_text(), re.MULTILINE)


def test_every_command_is_there(page: Path) -> None:
    """In the synopsis and with a text of its own."""
    text = formatted(page)
    usage = subprocess.run(
        [sys.executable, "-m", "sidecar", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    commands = re.findall(r"^    (\w+)  ", usage.stdout, re.MULTILINE)
    assert {"run", "check", "explain"} <= set(commands)
    for command in commands:
        assert_command(text, command)


def assert_command(text: str, command: str) -> None:
    assert re.search(rf"^ +sidecar {command}\b", text, re.MULTILINE)
    assert re.search(rf"^ {{1,4}}{command}\n +[A-Z]", text, re.MULTILINE)


def test_arguments_are_written_as_they_are_typed(page: Path) -> None:
    text = formatted(page)
    typed = (
        "sidecar explain [--conf DIR] [--json] [-H 'K: V'] [--client IP] [--tls-sni NAME] "
        "[--client-cert FILE] [--listener NAME] [METHOD] URL"
    )
    assert typed in " ".join(text.split())
    assert "-H 'K: V', --header 'K: V'" in text


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.KIND)
def test_every_option_is_there_with_what_it_means(page: Path, section: type) -> None:
    """Its key, its default and the sentence of its declaration."""
    text = formatted(page)
    assert header(section.KIND, "NAME" if section.NAMED else "") in text
    for option in options(section).values():
        assert re.search(rf"^ +{re.escape(option.written)} +\(", text, re.MULTILINE), option.key
        assert " ".join(option.doc.replace("`", "").replace("…", "...").split()) in " ".join(text.split())


def test_events_and_metrics_are_there(page: Path) -> None:
    text = formatted(page)
    for name, declared in EVENTS.items():
        assert re.search(rf"^ +{name} +\({declared.level}\)", text, re.MULTILINE), name
    for metric, (kind, labels, _) in METRICS.items():
        told = f"{kind}; labels {', '.join(labels)}" if labels else kind
        assert re.search(rf"^ +{metric} +\({told}\)", text, re.MULTILINE), metric


@pytest.mark.parametrize(
    "word",
    [
        "SIDECAR_CONF",
        "TMPDIR",
        "NOTIFY_SOCKET",
        "LISTEN_FDS",
        "WATCHDOG_USEC",
        "TERM, INT",
        "HUP",
        "USR1",
        "USR2",
    ],
)
def test_variables_and_signals_are_there(page: Path, word: str) -> None:
    assert re.search(rf"^ +.*{word}", formatted(page), re.MULTILINE)


def test_example_is_one_that_works(page: Path, tmp_path: Path) -> None:
    """What a reader copies passes the check."""
    _, _, after = formatted(page).partition("\nEXAMPLE\n")
    example = textwrap.dedent(after.partition("\nSEE ALSO\n")[0])
    assert "[listener public]\nbind = " in example
    (tmp_path / "10-app.ini").write_text(example)
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "check", "--conf", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
