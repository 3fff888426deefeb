"""The manual page sidecar(8), from the parser of the command line and the declarations of options.

Law: what the program says of itself is not written again here. Only what no declaration knows is text.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import sidecar
from sidecar.cli import _parser
from sidecar.manual import manual

_FILES: Final = (
    (
        "/etc/sidecar/conf.d/*.ini",
        "The configuration, when neither `--conf` nor `$SIDECAR_CONF` nor `./conf.d` is there.",
    ),
    (
        "/etc/default/sidecar",
        "Variables for `${NAME}` in drop-ins, when the service runs. It may be missing.",
    ),
    ("/run/sidecar, /var/log/sidecar, /var/cache/sidecar, /var/lib/sidecar", "Where the service may write."),
)

_ENVIRONMENT: Final = (
    ("SIDECAR_CONF", "The directory to read when `--conf` is not given."),
    (
        "TMPDIR",
        "Where the program unpacks itself: a directory that is writable and not mounted noexec. "
        "Else /tmp, /dev/shm, `$XDG_RUNTIME_DIR` or /run is taken.",
    ),
    (
        "NOTIFY_SOCKET",
        "Where to tell the service manager that the process serves, reloads or stops: see `sd_notify`(3).",
    ),
    ("WATCHDOG_USEC, WATCHDOG_PID", "How often the service manager wants a sign of life."),
    (
        "LISTEN_FDS, LISTEN_FDNAMES, LISTEN_PID",
        "Sockets that were opened for this process. `bind = fd:NAME` takes them by name: "
        "see `sd_listen_fds`(3).",
    ),
)

_SIGNALS: Final = (
    (
        "TERM, INT",
        "Ends the process in good order: after `drain_delay` it takes no more connections, and what is in "
        "flight gets `drain_timeout` to finish. A second one ends it at once.",
    ),
    ("HUP", "Reads the configuration again. A change of the directory has the same effect."),
    ("USR1", "Opens the access log anew, after a rotation."),
    (
        "USR2",
        "Upgrades: starts the program that now lies at this one's path, on the same sockets, waits until it "
        "serves, and ends this process in good order. If the new one does not serve, this one goes on. "
        "Arguments and environment are those of this process.",
    ),
)

_EXIT_STATUS: Final = (
    ("0", "Done. For `run`: it was told to end."),
    ("1", "Mistakes, told on standard error; or a second signal ended it at once."),
    ("2", "Wrong usage."),
)

_MARKUP: Final = re.compile(r"`([^`]+)`|\*\*(.+?)\*\*")


#: What the directory of drop-ins says of a first one.
_EXAMPLE: Final = Path(__file__).with_name("debian") / "README"

_SEE_ALSO: Final = "`systemctl`(1), `journalctl`(1), `systemd.service`(5), `systemd.socket`(5)"


def page(date: datetime) -> str:
    """The page as roff text for the man macros. `date` is the one in its footer."""
    return "\n".join(_lines(date)) + "\n"


def _lines(date: datetime) -> Iterator[str]:
    parser = _parser()
    yield f'.TH SIDECAR 8 {date:%Y-%m-%d} "sidecar {_plain(sidecar.__version__)}" "System Administration"'
    yield ".nh"
    yield ".ad l"
    yield from _section("NAME", f"sidecar \\- {_plain(_lowered(parser.description or ''))}")
    yield ".SH SYNOPSIS"
    for name, command in _commands(parser).items():
        yield f".B sidecar {_plain(name)}"
        yield _synopsis(command)
        yield ".br"
    yield ".B sidecar \\-\\-version"
    yield ".SH COMMANDS"
    for name, command in _commands(parser).items():
        yield f".SS {_plain(name)}"
        yield _text(_sentence(command.description or ""))
        yield from _tagged((_written(action), _help(command, action)) for action in _arguments(command))
    for title, entries in (("FILES", _FILES), ("ENVIRONMENT", _ENVIRONMENT), ("SIGNALS", _SIGNALS)):
        yield f".SH {title}"
        yield from _tagged(iter(entries))
    yield ".SH EXIT STATUS"
    yield from _tagged(iter(_EXIT_STATUS))
    yield from _roff(manual())
    yield from (".SH EXAMPLE", ".nf", ".RS 4")
    yield from (_plain(line) for line in example().splitlines())
    yield from (".RE", ".fi", ".SH SEE ALSO", _text(_SEE_ALSO))


def example() -> str:
    """A first drop-in."""
    indented = [line for line in _EXAMPLE.read_text(encoding="utf-8").splitlines() if line[:1] in ("", " ")]
    return textwrap.dedent("\n".join(indented)).strip("\n") + "\n"


def _section(title: str, text: str) -> Iterator[str]:
    yield f".SH {title}"
    yield text


def _tagged(entries: Iterator[tuple[str, str]]) -> Iterator[str]:
    for term, text in entries:
        yield ".TP"
        yield f".B {_plain(term)}"
        yield _text(text)


# From the parser -------------------------------------------------------------------------------------------


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise ValueError("the parser has no commands")


def _arguments(command: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in command._actions if not isinstance(action, argparse._HelpAction)]


def _synopsis(command: argparse.ArgumentParser) -> str:
    options = [action for action in _arguments(command) if action.option_strings]
    places = [action for action in _arguments(command) if not action.option_strings]
    written = []
    for action in options:
        shown = " ".join(filter(None, (action.option_strings[0], _operand(action))))
        written.append(shown if action.required else f"[{shown}]")
    for action in places:
        shown = _operand(action)
        written.append(f"[{shown}]" if action.nargs == "?" else shown)
    return _plain(" ".join(written)) or "\\&"


def _written(action: argparse.Action) -> str:
    operand = _operand(action)
    if not action.option_strings:
        return operand
    return ", ".join(filter(None, (f"{name} {operand}".strip() for name in action.option_strings)))


def _operand(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    metavar = action.metavar if isinstance(action.metavar, str) else None
    return metavar or action.dest.upper()


def _help(command: argparse.ArgumentParser, action: argparse.Action) -> str:
    return _sentence((action.help or "") % {**vars(action), "prog": command.prog})


def _sentence(text: str) -> str:
    if text.startswith("http:"):
        return text
    return f"{text[:1].upper()}{text[1:].removesuffix('.')}."


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:].removesuffix(".")


# From Markdown, as far as the reference uses it ------------------------------------------------------------


def _roff(markdown: str) -> Iterator[str]:
    """The reference as sections: titles, paragraphs, lists and tables."""
    for block in re.split(r"\n{2,}", markdown.strip()):
        if block.startswith("# "):
            yield f".SH {_plain(block[2:].upper())}"
        elif block.startswith("## "):
            yield f".SS {_plain(block[3:])}"
        elif block.startswith("* "):
            yield from _list(block)
        elif block.startswith("|"):
            yield from _table(block)
        else:
            yield ".PP"
            yield _text(block)


def _list(block: str) -> Iterator[str]:
    for item in re.split(r"^\* ", block, flags=re.MULTILINE)[1:]:
        yield ".IP \\(bu 2"
        yield _text(item)


def _table(block: str) -> Iterator[str]:
    """A row's first cell, those up to the last in parentheses, and the last."""
    title, _, *rows = block.splitlines()
    names = _cells(title)[1:-1]
    for row in rows:
        key, *told, meaning = _cells(row)
        shown = "; ".join(filter(None, map(_said, names, told)))
        yield ".TP"
        yield f".BR {_quoted(_bare(key))} {_quoted(f' ({_bare(shown)})')}"
        yield _text(meaning)


def _cells(row: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def _said(column: str, value: str) -> str:
    """What says by itself what it is needs no name of its column."""
    is_plain = not value or value == "required" or column in ("kind", "level")
    return value if is_plain else f"{column} {value}"


def _bare(text: str) -> str:
    return text.replace("`", "")


def _quoted(text: str) -> str:
    return '"' + _plain(text).replace('"', "\\(dq") + '"'


def _text(text: str) -> str:
    """A paragraph on one line; what is code in Markdown is bold."""
    flat = " ".join(text.split())
    parts = []
    at = 0
    for match in _MARKUP.finditer(flat):
        parts += [_plain(flat[at : match.start()]), f"\\fB{_plain(match[1] or match[2])}\\fR"]
        at = match.end()
    parts.append(_plain(flat[at:]))
    line = "".join(parts)
    return f"\\&{line}" if line.startswith((".", "'")) else line


def _plain(text: str) -> str:
    """Text that roff prints as it is, whatever the encoding of the terminal."""
    escaped = text.replace("\\", "\\e")
    for character, escape in (
        ("-", "\\-"),
        ("'", "\\(aq"),
        ("`", "\\(ga"),
        ("^", "\\(ha"),
        ("~", "\\(ti"),
        ("…", "..."),
    ):
        escaped = escaped.replace(character, escape)
    return "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in escaped)


if __name__ == "__main__":
    sys.stdout.write(page(datetime.now(UTC)))
