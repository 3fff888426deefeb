"""The commands of `sidecar`: arguments in, text and an exit status out.

Law: no logic, and no import that a command does not need. 0: done; 1: mistakes, on stderr; 2: wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from . import __version__
from .errors import ConfigurationError

if TYPE_CHECKING:
    from .config.merge import Configuration

_HERE: Final = Path("conf.d")
_SYSTEM: Final = Path("/etc/sidecar/conf.d")


def main(argv: Sequence[str]) -> int:
    """Run one command. `argv` is without the program's name. SystemExit on wrong usage and `--help`."""
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.command(arguments)
        sys.stdout.flush()
    except ConfigurationError as error:
        return _refuse(error.mistakes)
    except BrokenPipeError:
        # The reader of our output has seen enough; the interpreter must not try to flush the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _refuse(mistakes: Sequence[str]) -> int:
    sys.stderr.writelines(f"{mistake}\n" for mistake in mistakes)
    return 1


def _write(text: str) -> None:
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")


def _write_json(value: dict[str, Any]) -> None:
    _write(json.dumps(value, indent=2))


def _directory(arguments: argparse.Namespace) -> Path:
    given = arguments.conf or os.environ.get("SIDECAR_CONF")
    if given:
        return Path(given)
    return _HERE if _HERE.is_dir() else _SYSTEM


def _load(directory: Path) -> Configuration:
    from .config.merge import load
    from .settings import SECTIONS

    return load(directory, SECTIONS, os.environ)


# Commands --------------------------------------------------------------------------------------------------


def _run(arguments: argparse.Namespace) -> int:
    from .process import run

    return run(_directory(arguments), arguments.with_demo)


def _demo(arguments: argparse.Namespace) -> int:
    from .demo import serve

    return serve(arguments.bind)


def _check(arguments: argparse.Namespace) -> int:
    directory = _directory(arguments)
    sections: dict[str, int] = {}
    warnings: list[str] = []
    try:
        configuration = _load(directory)
        sections = _counts(configuration)
        mistakes, warnings = _assemble(configuration)
    except ConfigurationError as error:
        mistakes = error.mistakes
    if arguments.json:
        _write_json({"ok": not mistakes, "mistakes": mistakes, "warnings": warnings, "sections": sections})
        return 1 if mistakes else 0
    sys.stderr.writelines(f"warning: {warning}\n" for warning in warnings)
    if mistakes:
        return _refuse(mistakes)
    _write(f"{directory}: ok: {', '.join(_counted(kind, count) for kind, count in sections.items())}")
    return 0


def _assemble(configuration: Configuration) -> tuple[list[str], list[str]]:
    from .app import check

    return check(configuration)


def _counts(configuration: Configuration) -> dict[str, int]:
    return {one.KIND: len(configuration.named(one)) for one in configuration.sections if one.NAMED}


def _counted(kind: str, count: int) -> str:
    return f"{count} {kind}" if count == 1 else f"{count} {kind}s"


def _show(arguments: argparse.Namespace) -> int:
    from .config import show

    configuration = _load(_directory(arguments))
    _write(show.as_json(configuration) if arguments.json else show.as_text(configuration))
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    from .routing.explain import explain

    explanation = explain(
        _load(_directory(arguments)),
        arguments.method,
        arguments.url,
        arguments.header,
        arguments.client,
        arguments.listener,
    )
    if arguments.json:
        _write_json(explanation.as_dict())
    else:
        _write(str(explanation))
    return 0


def _manual(arguments: argparse.Namespace) -> int:
    from .config.manual import manual
    from .settings import SECTIONS

    _write(manual(SECTIONS))
    return 0


# Arguments -------------------------------------------------------------------------------------------------


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"'{text}' is not a header: write 'Name: value'")
    return name.strip(), value.strip()


def _client(text: str) -> str:
    from ipaddress import ip_address

    try:
        return str(ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not an IP address: write 192.0.2.7 or ::1") from None


def _bind(text: str) -> str:
    from .config.addresses import BIND

    try:
        return str(BIND.parse(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sidecar",
        description="A reverse proxy in one file, configured by INI drop-ins.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"sidecar {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(command: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        name = command.__name__.removeprefix("_")
        added = commands.add_parser(name, help=text, description=f"{text}.", allow_abbrev=False)
        added.set_defaults(command=command)
        return added

    run = _with_conf(add(_run, "serve until told to stop"))
    run.add_argument("--with-demo", action="store_true", help="serve the demo upstream too")
    _with_json(_with_conf(add(_check, "tell every mistake of the configuration")))
    _with_json(_with_conf(add(_show, "print the configuration in effect, every value with its origin")))
    _add_question(_with_json(_with_conf(add(_explain, "tell what would happen to a request, and why"))))
    add(_manual, "print the reference of every option")
    demo = add(_demo, "serve the demo upstream alone")
    demo.add_argument(
        "--bind", metavar="ADDR", default="127.0.0.1:8000", type=_bind, help="where (%(default)s)"
    )
    return parser


def _with_conf(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument(
        "--conf", metavar="DIR", help=f"the files to read: else $SIDECAR_CONF, ./{_HERE} or {_SYSTEM}"
    )
    return parser


def _with_json(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--json", action="store_true", help="write JSON, for programs")
    return parser


def _add_question(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "method", metavar="METHOD", nargs="?", default="GET", help="%(default)s when left out"
    )
    parser.add_argument("url", metavar="URL", help="http://host/path")
    parser.add_argument(
        "-H",
        "--header",
        metavar="'K: V'",
        type=_header,
        action="append",
        default=[],
        help="a field; may be repeated",
    )
    parser.add_argument(
        "--client", metavar="IP", type=_client, default="127.0.0.1", help="its address (%(default)s)"
    )
    parser.add_argument("--listener", metavar="NAME", help="the listener it comes in by; else any")
