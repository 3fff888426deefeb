"""The commands of `sidecar`: arguments in, text and an exit status out.

Law: no logic, and no import that a command does not need. 0: done; 1: mistakes, on stderr, or servers that do
not answer; 2: wrong usage.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import resource
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

from . import __version__
from .errors import ConfigurationError

if TYPE_CHECKING:
    from .config.merge import Configuration
    from .config.schema import Section
    from .probing import Found

_HERE: Final = Path("conf.d")
_SYSTEM: Final = Path("/etc/sidecar/conf.d")

#: Descriptors that serving takes, with a few clients.
_FEWEST_DESCRIPTORS: Final = 32


class _Unwritable(Exception):
    """stdout does not take what is written; the reason, empty when its reader has seen enough."""


def main(argv: Sequence[str]) -> int:
    """Run one command. `argv` is without the program's name. SystemExit on wrong usage and `--help`."""
    _hold_standard_streams()
    try:
        arguments = _parse(argv)
        status: int = arguments.command(arguments)
    except ConfigurationError as error:
        return _refuse(error.mistakes)
    except _Unwritable as error:
        return _refuse([f"stdout: {error}"] if str(error) else [])
    return status


def _hold_standard_streams() -> None:
    """Put something in the place of standard streams that were closed.

    Else the next file or socket would get the number, and what is written to the stream. What goes to stdout
    is asked for, so writing it must fail; what goes to stderr nobody can be told of.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            _hold(fd)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - lasts as long as the process
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def _hold(fd: int) -> None:
    # In each case the lowest free number is the one that is wanted.
    if fd == 2:
        with suppress(OSError):  # an empty root has no devices
            os.open(os.devnull, os.O_WRONLY)
            return
    _, writer = os.pipe()
    os.close(writer)


def _tell(lines: Iterable[str]) -> None:
    if not sys.stderr:
        return
    try:
        sys.stderr.writelines(f"{line}\n" for line in lines)
        sys.stderr.flush()
    except OSError:
        # Nobody can read it any more: the exit status tells enough, and the interpreter must not try again.
        sys.stderr = cast(TextIO, None)


def _refuse(mistakes: Sequence[str]) -> int:
    _tell(mistakes)
    return 1


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    try:
        return _parser().parse_args(argv)
    except SystemExit:
        _write("")  # what --help and --version wrote leaves now
        raise


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # The interpreter must not try to write the rest as it ends.
        sys.stdout = cast(TextIO, None)
        told = {errno.EPIPE: "", errno.EBADF: "is closed: open it"}
        raise _Unwritable(told.get(error.errno or 0, f"cannot be written: {error.strerror}")) from error


def _write_line(line: str) -> None:
    _write(line if line.endswith("\n") else f"{line}\n")


def _write_json(value: dict[str, Any]) -> None:
    _write_line(json.dumps(value, indent=2))


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
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if 0 <= limit < _FEWEST_DESCRIPTORS:
        advice = f"raise the limit of open files to {_FEWEST_DESCRIPTORS} or, better, some thousands"
        raise ConfigurationError([f"{limit} descriptors are too few to serve anybody: {advice}"])
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
        told = {"ok": not mistakes, "mistakes": mistakes, "warnings": warnings, "sections": sections}
        return _check_json(told, configuration if arguments.probe and not mistakes else None)
    _tell(f"warning: {warning}" for warning in warnings)
    if mistakes:
        return _refuse(mistakes)
    from .config.ini import printable

    counted = ", ".join(_counted(kind, count) for kind, count in sections.items())
    _write_line(f"{printable(directory)}: ok: {counted}")
    return _probe(configuration) if arguments.probe else 0


def _check_json(told: dict[str, Any], probed: Configuration | None) -> int:
    if probed is not None:
        told["servers"] = [found.as_dict() for found in _dialed(probed)]
        told["ok"] = all(server["ok"] is not False for server in told["servers"])
    _write_json(told)
    return 0 if told["ok"] else 1


def _probe(configuration: Configuration) -> int:
    status = 0
    for found in _dialed(configuration):
        _write_line(str(found))
        if found.reason:
            status = 1
    return status


def _dialed(configuration: Configuration) -> Iterator[Found]:
    from .probing import probe
    from .runtime import SystemClock
    from .settings import SidecarSettings
    from .upstream.settings import UpstreamSettings

    name_servers = configuration.only(SidecarSettings).resolver
    return probe(configuration.named(UpstreamSettings), name_servers, SystemClock())


def _assemble(configuration: Configuration) -> tuple[list[str], list[str]]:
    from .app import check
    from .observe.sink import obstacle
    from .settings import SidecarSettings

    mistakes, warnings = check(configuration)
    # Only a warning: it may be another user, or another machine, that is going to serve.
    target = configuration.only(SidecarSettings).access_log
    if advice := "" if target == "off" else obstacle(target):
        warnings.append(configuration.mistake("sidecar", "", "access_log", f"{target}: {advice}"))
    return mistakes, warnings


def _counts(configuration: Configuration) -> dict[str, int]:
    return {one.KIND: len(configuration.named(one)) for one in configuration.sections if one.NAMED}


def _counted(kind: str, count: int) -> str:
    return f"{count} {kind}" if count == 1 else f"{count} {kind}s"


def _show(arguments: argparse.Namespace) -> int:
    from .config import show

    configuration = _load(_directory(arguments))
    _write_line(show.as_json(configuration) if arguments.json else show.as_text(configuration, _notes))
    return 0


def _notes(section: Section) -> Iterable[str]:
    from .upstream.settings import UpstreamSettings

    if not isinstance(section, UpstreamSettings):
        return ()
    from .upstream.outlook import outlook

    return outlook(section)


def _explain(arguments: argparse.Namespace) -> int:
    from .routing.asked import Question
    from .routing.explain import answer

    given = arguments
    question = Question(
        given.method, given.url, tuple(given.header), given.client, given.tls_sni, given.client_cert
    )
    explanation = answer(_load(_directory(arguments)), question, arguments.listener)
    if arguments.json:
        _write_json(explanation.as_dict())
    else:
        _write_line(str(explanation))
    return 0


def _manual(arguments: argparse.Namespace) -> int:
    from .manual import manual

    _write_line(manual())
    return 0


def _about(arguments: argparse.Namespace) -> int:
    from .about import about, as_text

    facts = about()
    if arguments.json:
        _write_json(facts)
    else:
        _write(as_text(facts))
    return 0


# Arguments -------------------------------------------------------------------------------------------------


def _folder(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("it is empty: name a directory, or leave the option out")
    return text


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


def _certificate(text: str) -> bytes:
    from .wire.certificate import parse, pem_blocks
    from .wire.octets import Unreadable

    try:
        blocks = pem_blocks(Path(text).read_bytes())
        if not blocks:
            raise Unreadable("it has no CERTIFICATE block")
        parse(blocks[0])
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be read: {error.strerror}") from None
    except Unreadable as error:
        raise argparse.ArgumentTypeError(f"{text} is no certificate (PEM): {error}") from None
    return blocks[0]


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
    check = _with_json(_with_conf(add(_check, "tell every mistake of the configuration")))
    check.add_argument("--probe", action="store_true", help="then dial every server of every upstream, once")
    _with_json(_with_conf(add(_show, "print the configuration in effect, every value with its origin")))
    _add_question(_with_json(_with_conf(add(_explain, "tell what would happen to a request, and why"))))
    add(_manual, "print the reference of every option, event and metric")
    _with_json(add(_about, "tell what this program is made of and what it found on this machine"))
    demo = add(_demo, "serve the demo upstream alone")
    demo.add_argument(
        "--bind", metavar="ADDR", default="127.0.0.1:8000", type=_bind, help="where (%(default)s)"
    )
    return parser


def _with_conf(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument(
        "--conf",
        metavar="DIR",
        type=_folder,
        help=f"the files to read: else $SIDECAR_CONF, ./{_HERE} or {_SYSTEM}",
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
    parser.add_argument(
        "--tls-sni", metavar="NAME", default="", help="the name that its handshake asks for; else the host"
    )
    parser.add_argument(
        "--client-cert",
        metavar="FILE",
        type=_certificate,
        default=b"",
        help="the certificate that it shows (PEM), taken as verified; else none",
    )
    parser.add_argument("--listener", metavar="NAME", help="the listener it comes in by; else any")
