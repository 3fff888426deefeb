"""Commands: what goes to which stream, and the exit status."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import trustme

import sidecar
from sidecar import __main__ as entry
from sidecar import cli
from sidecar.config.merge import load
from sidecar.errors import ConfigurationError
from sidecar.routing.asked import Question
from sidecar.settings import SECTIONS

GOOD = "[listener public]\nbind = 127.0.0.1:0\n[upstream app]\nserver.a = 127.0.0.1:8000\n"
BAD = "[listener public]\nbind = 127.0.0.1\n[sidecar]\nlog_level = loud\n"

ROOT = Path(__file__).parent.parent

Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put functions in the place of a module of the package."""

    def put(name: str, **functions: Any) -> None:
        module = ModuleType(f"sidecar.{name}")
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, f"sidecar.{name}", module)

    return put


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    (tmp_path / "a.ini").write_text(GOOD)
    return tmp_path


def test_check_counts_what_it_found(conf: Path, install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("app", check=lambda configuration: ([], ["app: one server only"]))
    assert cli.main(["check", "--conf", str(conf)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{conf}: ok: 1 listener, 0 certificates, 1 upstream, 0 routes\n"
    assert err == "warning: app: one server only\n"


def test_check_tells_of_a_folder_whose_name_is_no_text(tmp_path: Path, install: Install, capfd: Any) -> None:
    install("app", check=lambda configuration: ([], []))
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n"))
    folder.mkdir()
    assert cli.main(["check", "--conf", str(folder)]) == 0
    assert capfd.readouterr().out.startswith(f"{tmp_path}/\\xff\\n: ok: ")


def test_check_tells_every_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.ini").write_text(BAD)
    assert cli.main(["check", "--conf", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"{tmp_path}/a.ini:2: [listener public] bind: '127.0.0.1' has no port:"
        " write host:port, [v6]:port or unix:/path\n"
        f"{tmp_path}/a.ini:4: [sidecar] log_level: 'loud' is not one of debug, info, warning, error:"
        " write debug, info, warning or error\n"
    )


def test_check_tells_the_mistakes_of_the_assembly(
    conf: Path, install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("app", check=lambda configuration: (["no route"], ["odd"]))
    assert cli.main(["check", "--conf", str(conf)]) == 1
    assert capsys.readouterr() == ("", "warning: odd\nno route\n")


def test_check_writes_json(conf: Path, install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("app", check=lambda configuration: ([], ["odd"]))
    assert cli.main(["check", "--json", "--conf", str(conf)]) == 0
    out, err = capsys.readouterr()
    assert (json.loads(out), err) == (
        {
            "ok": True,
            "mistakes": [],
            "warnings": ["odd"],
            "sections": {"listener": 1, "certificate": 0, "upstream": 1, "route": 0},
        },
        "",
    )
    (conf / "b.ini").write_text("nonsense")
    assert cli.main(["check", "--json", "--conf", str(conf)]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["mistakes"] == [f"{conf}/b.ini:1: 'nonsense' has no '=': write key = value"]
    assert err == ""


class Dialed:
    """What became of one server."""

    def __init__(self, name: str, reason: str = "", ok: bool | None = True) -> None:
        self.name = name
        self.reason = reason
        self.ok = ok

    def __str__(self) -> str:
        return f"{self.name}: {self.reason or 'ok'}"

    def as_dict(self) -> dict[str, object]:
        return {"server": self.name, "ok": self.ok}


def test_check_dials_the_servers_when_asked_to(
    conf: Path, install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    (conf / "b.ini").write_text("[sidecar]\nresolver = 127.0.0.9:53\n")
    calls: list[tuple[list[str], tuple[str, ...]]] = []
    found = [Dialed("a"), Dialed("down", ok=None)]

    def probe(upstreams: dict[str, object], name_servers: tuple[str, ...], _clock: object) -> list[Dialed]:
        calls.append((list(upstreams), name_servers))
        return found

    install("app", check=lambda configuration: ([], []))
    install("probing", probe=probe)
    good = f"{conf}: ok: 1 listener, 0 certificates, 1 upstream, 0 routes\n"
    assert cli.main(["check", "--conf", str(conf)]) == 0
    assert (capsys.readouterr().out, calls) == (good, [])
    assert cli.main(["check", "--probe", "--conf", str(conf)]) == 0
    assert capsys.readouterr() == (f"{good}a: ok\ndown: ok\n", "")
    assert calls == [(["app"], ("127.0.0.9:53",))]
    assert cli.main(["check", "--probe", "--json", "--conf", str(conf)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], told["servers"]) == (
        True,
        [{"server": "a", "ok": True}, {"server": "down", "ok": None}],
    )
    found.insert(1, Dialed("b", "connection_refused", False))
    assert cli.main(["check", "--probe", "--conf", str(conf)]) == 1
    assert capsys.readouterr().out == f"{good}a: ok\nb: connection_refused\ndown: ok\n"
    assert cli.main(["check", "--probe", "--json", "--conf", str(conf)]) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_a_configuration_with_mistakes_dials_nobody(
    conf: Path, install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("app", check=lambda configuration: (["no route"], []))
    assert cli.main(["check", "--probe", "--conf", str(conf)]) == 1
    assert capsys.readouterr() == ("", "no route\n")
    assert cli.main(["check", "--probe", "--json", "--conf", str(conf)]) == 1
    assert "servers" not in json.loads(capsys.readouterr().out)


def test_check_dials_real_servers(conf: Path) -> None:
    """In a process of its own: nothing there is patched, and nothing keeps it from ending."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (conf / "a.ini").write_text(
            "[listener public]\nbind = 127.0.0.1:0\n"
            f"[upstream app]\nserver.a = localhost:{port}\nserver.b = 127.0.0.1:1\n"
        )
        command = [sys.executable, "-m", "sidecar", "check", "--probe", "--conf", str(conf)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert lines[1].startswith("upstream app: server.a ")
    assert re.search(r": ok, [0-9.]+ ms$", lines[1])
    assert lines[2:] == ["upstream app: server.b 127.0.0.1:1: connection_refused: Connection refused"]


def test_show_writes_ini_or_json(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", "--conf", str(conf)]) == 0
    text = capsys.readouterr().out
    assert f"# {conf}/a.ini:2\nbind = 127.0.0.1:0\n# default\nprotocol = http\n" in text
    assert cli.main(["show", "--json", "--conf", str(conf)]) == 0
    assert json.loads(capsys.readouterr().out)["sections"][0]["kind"] == "sidecar"


def test_show_says_which_server_is_next(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In comments: what is shown reads back as the same configuration."""
    servers = (
        "server.a = 127.0.0.1:8001\nserver.b = 127.0.0.1:8002 weight=5\nserver.c = 127.0.0.1:8003 backup\n"
    )
    (conf / "b.ini").write_text(f"[upstream app]\n{servers}")
    assert cli.main(["show", "--conf", str(conf)]) == 0
    text = capsys.readouterr().out
    assert (
        "# servers take turns by weight:\n"
        "# server.a: its turn comes later, 1 of 6 requests\n"
        "# server.b is asked first, 5 of 6 requests\n"
        "# server.c: backup, asked when no other can be\n"
    ) in text
    again = conf / "again"
    again.mkdir()
    (again / "a.ini").write_text(text)
    first, second = (load(folder, SECTIONS, {}) for folder in (conf, again))
    assert [first.named(one) for one in SECTIONS if one.NAMED] == [
        second.named(one) for one in SECTIONS if one.NAMED
    ]


def test_explain_passes_the_question_on(
    conf: Path, install: Install, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked: list[tuple[Question, str | None]] = []

    class Explanation:
        def __init__(self, configuration: object, question: Question, listener: str | None) -> None:
            asked.append((question, listener))

        def __str__(self) -> str:
            return "explained"

        def as_dict(self) -> dict[str, object]:
            return {"is": "explained"}

    install("routing.explain", answer=Explanation)
    assert cli.main(["explain", "http://a/b", "--conf", str(conf)]) == 0
    assert capsys.readouterr().out == "explained\n"
    more = ["-H", "X-A: 1", "-H", "x-b:2:3", "--client", "::0001", "--listener", "public", "--json"]
    issued = trustme.CA().issue_cert("me@example.org").cert_chain_pems[0]
    issued.write_to_path(str(tmp_path / "me.pem"))
    more += ["--tls-sni", "a", "--client-cert", str(tmp_path / "me.pem")]
    assert cli.main(["explain", "PUT", "/b", *more, "--conf", str(conf)]) == 0
    assert json.loads(capsys.readouterr().out) == {"is": "explained"}
    shown = ssl.PEM_cert_to_DER_cert(issued.bytes().decode())
    assert asked == [
        (Question("GET", "http://a/b", (), "127.0.0.1"), None),
        (Question("PUT", "/b", (("X-A", "1"), ("x-b", "2:3")), "::1", "a", shown), "public"),
    ]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"nothing", "is no certificate (PEM): it has no CERTIFICATE block"),
        (
            b"-----BEGIN CERTIFICATE-----\nAAAA\n",
            "is no certificate (PEM): certificate 1 of the file has no END",
        ),
    ],
)
def test_a_client_certificate_must_be_one(
    data: bytes | None, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "me.pem"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(SystemExit):
        cli.main(["explain", "/", "--client-cert", str(file)])
    assert told in capsys.readouterr().err


def test_serving_commands_return_the_status_of_the_server(conf: Path, install: Install) -> None:
    calls: list[object] = []

    def serve(*arguments: object) -> int:
        calls.append(arguments)
        return 3

    install("process", run=serve)
    install("demo", serve=serve)
    assert cli.main(["run", "--conf", str(conf)]) == 3
    assert cli.main(["run", "--with-demo", "--conf", str(conf)]) == 3
    assert cli.main(["demo"]) == 3
    assert cli.main(["demo", "--bind", "[::1]:9000"]) == 3
    assert calls == [(conf, False), (conf, True), ("127.0.0.1:8000",), ("[::1]:9000",)]


def test_run_refuses_a_configuration_with_mistakes(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(directory: Path, with_demo: bool) -> int:
        raise ConfigurationError(["one", "two"])

    install("process", run=run)
    assert cli.main(["run"]) == 1
    assert capsys.readouterr() == ("", "one\ntwo\n")


def test_the_directory_is_the_option_the_variable_or_a_place(
    tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def run(directory: Path, with_demo: bool) -> int:
        asked.append(str(directory))
        return 0

    install("process", run=run)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIDECAR_CONF", "")
    cli.main(["run"])
    (tmp_path / "conf.d").mkdir()
    cli.main(["run"])
    monkeypatch.setenv("SIDECAR_CONF", "/srv/conf")
    cli.main(["run"])
    cli.main(["run", "--conf", "here"])
    assert asked == ["/etc/sidecar/conf.d", "conf.d", "/srv/conf", "here"]


def test_the_manual_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["manual"]) == 0
    assert "| `header_timeout` | duration | `15s` |" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["serve"],
        ["run", "--with"],
        ["explain"],
        ["explain", "/", "-H", "no colon"],
        ["explain", "/", "--client", "localhost"],
        ["demo", "--bind", "8000"],
        ["run", "--conf", ""],
        ["manual", "--json"],
    ],
)
def test_wrong_usage_exits_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == 2
    assert "usage: sidecar" in capsys.readouterr().err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"sidecar {sidecar.__version__}\n"


class Script:
    """A stdout that does as it is told."""

    def __init__(self, code: int) -> None:
        self.code = code

    def write(self, _text: str) -> int:
        raise OSError(self.code, os.strerror(self.code))

    def flush(self) -> None:
        pass


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (errno.EPIPE, ""),
        (errno.EBADF, "stdout: is closed: open it\n"),
        (errno.ENOSPC, "stdout: cannot be written: No space left on device\n"),
    ],
)
@pytest.mark.parametrize("arguments", [["manual"], ["--help"], ["--version"]])
def test_output_that_cannot_be_written_is_no_traceback(
    arguments: list[str], code: int, told: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(sys, "stdout", Script(code))
    assert cli.main(arguments) == 1
    assert capsys.readouterr().err == told
    assert sys.stdout is None


def test_a_stderr_that_nobody_reads_leaves_the_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone:
        def writelines(self, lines: object) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    assert cli.main(["check", "--conf", str(tmp_path / "missing")]) == 1
    assert sys.stderr is None


@pytest.mark.parametrize("devices", ["/dev/null", "/gone"])
def test_standard_streams_that_are_closed_are_held(conf: Path, devices: str) -> None:
    """No socket or file of the process gets their numbers, and Python has streams to write to."""
    code = (
        "import os, sys; [os.close(fd) for fd in (0, 1, 2)]; sys.stdout = sys.stderr = None; "
        f"os.devnull = {devices!r}; "
        "from sidecar import cli; "
        f"status = cli.main(['check', '--conf', {str(conf)!r}]); "
        "assert os.open('/', os.O_RDONLY) > 2; "
        "sys.exit(10 + status)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 11


def test_check_warns_of_a_log_that_could_not_be_opened_here(
    conf: Path, install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("app", check=lambda configuration: ([], []))
    (conf / "b.ini").write_text("[sidecar]\naccess_log = /nowhere/log\n")
    assert cli.main(["check", "--conf", str(conf)]) == 0
    assert capsys.readouterr().err == (
        f"warning: {conf}/b.ini:2: [sidecar] access_log: /nowhere/log: is in a directory that does not exist:"
        " make it first, or name another file\n"
    )
    (conf / "b.ini").write_text("[sidecar]\naccess_log = off\n")
    assert cli.main(["check", "--conf", str(conf)]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("limit", "status"), [(31, 1), (32, 0), (resource.RLIM_INFINITY, 0)])
def test_a_process_that_could_serve_nobody_does_not_start(
    limit: int, status: int, install: Install, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    install("process", run=lambda directory, with_demo: 0)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8, limit))
    assert cli.main(["run"]) == status
    assert ("31 descriptors are too few" in capsys.readouterr().err) == bool(status)


@pytest.mark.parametrize(
    ("command", "is_patched"), [("run", True), ("demo", True), ("check", False), ("", False)]
)
def test_only_commands_that_serve_are_patched(
    command: str, is_patched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def command_line(argv: list[str]) -> int:
        seen.append(" ".join(argv))
        return 7

    events = SimpleNamespace(notify="tell those inside", notify_and_call_entry_points="look for plugins, too")
    monkey = SimpleNamespace(patch_all=lambda: seen.append(events.notify_and_call_entry_points))
    monkeypatch.setitem(sys.modules, "gevent", SimpleNamespace(monkey=monkey, events=events))
    monkeypatch.setattr(cli, "main", command_line)
    monkeypatch.setattr(sys, "argv", ["sidecar", command] if command else ["sidecar"])
    assert entry.main() == 7
    assert seen == (["tell those inside", command] if is_patched else [command])


def test_commands_that_only_read_do_not_load_gevent(conf: Path) -> None:
    code = (
        "import sys; from sidecar import cli; "
        f"status = cli.main(['show', '--conf', {str(conf)!r}]); "
        "sys.exit(status or 'gevent' in sys.modules or 'urllib3' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
