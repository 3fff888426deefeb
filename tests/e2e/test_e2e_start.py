"""How the process starts, and how it refuses to."""

from __future__ import annotations

import re
import signal
import socket

import pytest

from tests.support.live import ROOT, START, Live
from tests.support.peers import ask


def test_start_tells_one_line_when_it_serves(live: Live) -> None:
    """`started` comes once, after the listener is bound, and the listener answers."""
    sidecar = live.start("[route hello]\npath = /hello\nrespond = 200 hello")
    assert ask(live.port, "/hello").body == b"hello"
    names = [event["event"] for event in sidecar.events()]
    assert names.count("started") == 1
    assert names.index("listener_bound") < names.index("started")
    assert sidecar.events("listener_bound")[0]["address"] == f"127.0.0.1:{live.port}"
    assert sidecar.complaints() == []


def test_start_applies_the_configuration_once(live: Live) -> None:
    """The first look of the watch finds nothing new: an asked reload says unchanged, and none was applied."""
    sidecar = live.start("[route hello]\npath = /hello\nrespond = 200 hello")
    sidecar.signal(signal.SIGHUP)
    sidecar.wait_event("reload_unchanged")
    assert sidecar.events("reload_applied") == []


def test_start_with_a_port_in_use_names_the_address_and_the_remedy(live: Live) -> None:
    """One line with file and line, exit status 1, and no listener was opened for anybody."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        sidecar = live.launch(
            config=f"[listener free]\nbind = 127.0.0.1:{live.port}\n\n"
            f"[listener taken]\nbind = 127.0.0.1:{taken}"
        )
        assert sidecar.wait_exit(START) == 1
    (line,) = sidecar.complaints()
    assert re.match(rf".*10-test\.ini:5: \[listener taken\] bind: 127\.0\.0\.1:{taken}: ", line)
    assert "in use" in line
    assert "choose another port" in line
    assert sidecar.events("started") == sidecar.events("listener_bound") == []


def test_start_without_a_folder_names_it(live: Live) -> None:
    """The folder that is not there is named, in one line."""
    sidecar = live.launch(conf=live.folder / "nowhere")
    assert sidecar.wait_exit(START) == 1
    (line,) = sidecar.complaints()
    assert "nowhere" in line


def test_start_tells_all_mistakes_with_file_and_line(live: Live) -> None:
    """Mistakes of several files are told at once, each with its place, and nothing serves."""
    live.listen("idle_timout = 5s")
    live.conf.write(
        "20-b.ini", "[route b]\npath = /b\nrespond = 200 b\n\n[upstrem x]\nserver.a = 127.0.0.1:1"
    )
    sidecar = live.launch(config="[route a]\nupstream = missing")
    assert sidecar.wait_exit(START) == 1
    lines = sidecar.complaints()
    places = [re.search(r"([^/]+\.ini:\d+): ", line) for line in lines]
    assert [place and place[1] for place in places] == ["00-listener.ini:3", "20-b.ini:5"]
    assert "idle_timeout" in lines[0]
    assert "upstream" in lines[1]


def test_start_tells_what_assembly_finds_with_file_and_line(live: Live) -> None:
    """A route to an upstream that is nowhere is refused like any other mistake."""
    live.listen()
    sidecar = live.launch(config="[route a]\nupstream = missing")
    assert sidecar.wait_exit(START) == 1
    (line,) = sidecar.complaints()
    assert "10-test.ini:2: [route a] upstream: " in line


@pytest.mark.parametrize("command", ["make run", "readme"])
def test_start_of_the_repository_itself(live: Live, command: str) -> None:
    """The command of `make run` answers, and the drop-in of the README works as it is written there."""
    _copy_conf(live)
    sidecar = live.launch("--with-demo")
    sidecar.wait_event("started", timeout=START)
    assert ask(live.port, "/anything?status=201").status == 201
    if command == "make run":
        assert ask(live.port, "/hello").body.startswith(b"Hello 127.0.0.1")
        return
    drop_in, host, target = _readme()
    live.conf.write("20-shop.ini", drop_in)
    sidecar.wait_event("reload_applied")
    answer = ask(live.port, target, Host=host)
    assert answer.status == 201
    assert answer.fields["x-frame-options"] == "DENY"
    assert b'"target": "/users?status=201"' in answer.body
    assert b'"X-Env"' in answer.body


def _copy_conf(live: Live) -> None:
    for file in (ROOT / "conf.d").glob("*.ini"):
        text = file.read_text()
        live.conf.write(file.name, text.replace("127.0.0.1:8080", f"127.0.0.1:{live.port}"))


def _readme() -> tuple[str, str, str]:
    """The README's drop-in, and host and target of the request it shows."""
    text = (ROOT / "README.md").read_text()
    drop_in = re.search(r"```ini\n(.*?)```", text, re.DOTALL)
    shown = re.search(r"curl -i -H 'Host: ([^']+)' 'http://127\.0\.0\.1:8080([^']+)'", text)
    assert drop_in
    assert shown
    return drop_in[1], shown[1], shown[2]
