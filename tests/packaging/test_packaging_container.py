"""The container image: its Dockerfile is carried out by hand, and the program runs in what comes of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sidecar import __version__
from tests.packaging import dockerfile
from tests.packaging.machine import children
from tests.support.live import ROOT, free_port, until
from tests.support.programs import program, require_root

DOCKERFILE = ROOT / "packaging/Dockerfile"
ROUTES = "[listener public]\nbind = 127.0.0.1:{port}\n[route hello]\npath = /hello\nrespond = 200 hello\n"

#: $1: the root, $2: ro or rw, $3: uid:gid; then the command.
START = """
root=$1 access=$2 user=$3
shift 3
mount --make-rprivate /
mount --bind "$root" "$root"
mkdir -p "$root/proc"
mount -t proc proc "$root/proc"
if [ "$access" = ro ]; then
    mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/tmp"
    mount -o remount,bind,ro "$root"
fi
exec setpriv --no-new-privs --bounding-set -all,+sys_chroot,+setuid,+setgid \
    chroot --userspec="$user" --groups= "$root" "$@"
"""

Start = Callable[..., "Container"]


class Container:
    """A program that runs in a root and a process namespace of its own."""

    def __init__(self, root: Path, access: str, image: dockerfile.Image, command: list[str]) -> None:
        self.outer = subprocess.Popen(
            [
                program("unshare", "util-linux"),
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "sh",
                "-euc",
                START,
            ]
            + ["sh", str(root), access, image.values["USER"], *image.commands["ENTRYPOINT"], *command],
            env={"PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to its first process."""
        (first,) = children(self.outer.pid)
        os.kill(first, number)

    def end(self) -> tuple[int, str]:
        """Its exit status and what it wrote."""
        said, _ = self.outer.communicate(timeout=20)
        return self.outer.returncode, said


@pytest.fixture
def image(binary: Path, tmp_path: Path) -> dockerfile.Image:
    """What the Dockerfile says, and its root in `tmp_path`/root, with the binary under test."""
    require_root("the root of an image")
    context = tmp_path / "context"
    for source in ("packaging/container", "packaging/debian"):
        shutil.copytree(ROOT / source, context / source)
    (context / "dist").mkdir()
    shutil.copy(binary, context / "dist/sidecar")
    found = dockerfile.read(DOCKERFILE)
    dockerfile.make(found, context, tmp_path / "root")
    tmp_path.chmod(0o755)
    return found


@pytest.fixture
def start(image: dockerfile.Image, tmp_path: Path) -> Iterator[Start]:
    """Start containers of the image; they end with the test."""
    started: list[Container] = []

    def launch(*command: str, access: str = "rw") -> Container:
        started.append(Container(tmp_path / "root", access, image, list(command) or image.commands["CMD"]))
        return started[-1]

    yield launch
    for container in started:
        if container.outer.poll() is None:
            container.outer.kill()
            container.outer.communicate()


def test_image_is_run_by_nobody_in_particular(image: dockerfile.Image) -> None:
    """A number that is not root's: Kubernetes refuses a name with runAsNonRoot."""
    user, _, group = image.values["USER"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert image.values["STOPSIGNAL"] == "SIGTERM"
    assert image.ports == ["8080"]
    assert image.commands == {
        "ENTRYPOINT": ["/usr/bin/sidecar"],
        "CMD": ["run", "--conf", "/etc/sidecar/conf.d"],
    }


def test_image_has_the_program_and_a_place_to_unpack(image: dockerfile.Image, tmp_path: Path) -> None:
    """Only /tmp is not root's; everybody may write there."""
    found = {
        f"/{path.relative_to(tmp_path / 'root')}": (path.stat().st_uid, f"{path.stat().st_mode & 0o7777:o}")
        for path in (tmp_path / "root").rglob("*")
        if path.is_file() or not any(path.iterdir()) or path.name == "tmp"
    }
    uid = int(image.values["USER"].partition(":")[0])
    assert found == {
        "/etc/sidecar/conf.d/README": (0, "644"),
        "/tmp": (uid, "1777"),
        "/tmp/README": (uid, "1777"),
        "/usr/bin/sidecar": (0, "755"),
    }


def test_builder_is_sent_what_is_copied_and_no_more() -> None:
    """Everything is ignored but the sources of the COPY lines."""
    ignored, *kept = [
        line
        for line in (ROOT / "packaging/Dockerfile.dockerignore").read_text().splitlines()
        if line[0] != "#"
    ]
    assert ignored == "*"
    sources = [copy.source.rstrip("/") for copy in dockerfile.read(DOCKERFILE).copies]
    assert sorted(line.removeprefix("!") for line in kept) == sorted(sources)


@pytest.mark.parametrize(
    "text",
    [
        "FROM debian\n",
        "FROM scratch\nRUN mkdir /tmp\n",
        "FROM scratch\nCMD sidecar run\n",
        "FROM scratch\nCOPY --from=other a b\n",
    ],
)
def test_reader_refuses_what_scratch_cannot_do(tmp_path: Path, text: str) -> None:
    """So that the tests above can fail."""
    file = tmp_path / "Dockerfile"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"."):
        dockerfile.read(file)


def test_commands_work_in_the_image(start: Start) -> None:
    """With nothing in the root but the program."""
    assert start("--version").end() == (0, f"sidecar {__version__}\n")
    status, said = start("check").end()
    assert (status, said.splitlines()[-1]) == (
        0,
        "/etc/sidecar/conf.d: ok: 0 listeners, 0 certificates, 0 upstreams, 0 routes",
    )


@pytest.mark.parametrize("access", ["rw", "ro"])
def test_image_serves_and_drains(start: Start, tmp_path: Path, access: str) -> None:
    """As the first process, not as root; `ro`: a read-only root, /tmp a volume, as in the manifests."""
    port = free_port()
    (tmp_path / "root/etc/sidecar/conf.d/10-hello.ini").write_text(ROUTES.format(port=port))
    container = start(access=access)

    def answer() -> bytes:
        assert container.outer.poll() is None, container.end()
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/hello", timeout=5) as got,
        ):
            return bytes(got.read())
        return b""

    assert until(answer, "it serves", 15.0) == b"hello"
    (first,) = children(container.outer.pid)
    status = Path(f"/proc/{first}/status").read_text()
    assert "\nUid:\t65532\t65532\t65532\t65532\n" in status
    assert "\nNSpid:\t" in status
    assert status.partition("\nNSpid:\t")[2].split("\n")[0].split()[-1] == "1"
    assert "\nCapEff:\t0000000000000000\n" in status
    container.signal(signal.SIGTERM)
    code, said = container.end()
    assert code == 0, said
    assert [path.name for path in (tmp_path / "root/tmp").iterdir()] == ["README"]
