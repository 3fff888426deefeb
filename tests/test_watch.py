"""Every way to change a drop-in is noticed; what is no drop-in is not. Real directories, a real kernel."""

from __future__ import annotations

import errno
import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event

from sidecar import paths
from sidecar import watch as module
from sidecar.paths import DropIns, Files
from sidecar.watch import Watch

DEADLINE = 10.0


class Noting(Watch):
    """A Watch that notes what it made of each event."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.weighed: list[tuple[str, str]] = []
        self.has_weighed = Event()

    def _weigh(self, watch: int, mask: int, name: str) -> Any:
        news = super()._weigh(watch, mask, name)
        self.weighed.append((name, news.name))
        self.has_weighed.set()
        return news


def contents(directory: Path) -> dict[str, str | None] | None:
    """What a reader would see."""
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".ini"))
    except OSError:
        return None
    return {name: text(directory / name) for name in names}


def text(path: Path) -> str | None:
    return path.read_text() if path.is_file() else None


class Watched:
    """A directory under watch, and what was to be seen in it at every call."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self._directory = directory
        self.seen: list[Any] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._called = Event()
        self.watch = Noting(DropIns(directory), self._on_change, self._event, **options)
        self.watch.start()
        self.await_call()

    def _on_change(self) -> None:
        self.seen.append(contents(self._directory))
        self._called.set()

    def _event(self, name: str, **fields: Any) -> None:
        self.events.append((name, fields))

    @property
    def calls(self) -> int:
        return len(self.seen)

    def await_call(self) -> None:
        self._called.clear()
        assert self._called.wait(DEADLINE), "nothing was noticed"

    def notices(self, change: Callable[[], Any]) -> None:
        """Make a change of contents; assert that it is noticed."""
        change()
        now = contents(self._directory)
        assert now != self.seen[-1]
        with gevent.Timeout(DEADLINE, AssertionError("the change was not noticed")):
            while self.seen[-1] != now:
                self.await_call()


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    directory = tmp_path / "etc" / "conf.d"
    directory.mkdir(parents=True)
    (directory / "a.ini").write_text("one")
    return directory


@pytest.fixture
def watch() -> Iterator[Callable[..., Watched]]:
    started: list[Watched] = []

    def start(directory: Path, **options: Any) -> Watched:
        started.append(Watched(directory, **options))
        return started[-1]

    yield start
    for watched in started:
        watched.watch.stop()


Start = Callable[..., Watched]


def swap(link: Path, target: str) -> None:
    """Point a link elsewhere in one step."""
    temporary = link.with_name("temporary")
    temporary.symlink_to(target)
    temporary.rename(link)


def write_and_rename(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.rename(path)


def test_a_change_before_the_watch_is_in_place_is_not_lost(watch: Start, conf: Path) -> None:
    assert watch(conf).calls == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda conf: (conf / "a.ini").write_text("two"),
        lambda conf: write_and_rename(conf / "a.ini", "two"),
        lambda conf: (conf / "b.ini").write_text("new"),
        lambda conf: (conf / "a.ini").unlink(),
        lambda conf: (conf / "a.ini").rename(conf / "a.off"),
        lambda conf: (conf / "a.ini").chmod(0o600),
        lambda conf: (conf / "b.ini").symlink_to("a.ini"),
        lambda conf: os.link(conf / "a.ini", conf / "b.ini"),
    ],
    ids=["in place", "renamed", "new", "removed", "put away", "made readable", "linked", "hard-linked"],
)
def test_changes_of_drop_ins(watch: Start, conf: Path, change: Callable[[Path], Any]) -> None:
    watched = watch(conf)
    change(conf)
    watched.await_call()
    assert not watched.events


def test_other_files_are_not_noticed(watch: Start, conf: Path) -> None:
    watched = watch(conf)
    for name in (".a.ini.swp", "a.ini~", "#a.ini#", "4913", "README", ".hidden.ini", "..data"):
        (conf / name).write_text("x")
        (conf / name).unlink()
    (conf.parent / "other.ini").write_text("x")
    (conf / "a.ini").read_text()
    # The queue keeps its order, so what follows proves that the rest has been seen.
    watched.notices(lambda: (conf / "a.ini").write_text("two"))
    assert watched.watch.weighed.pop() == ("a.ini", "CHANGED")
    assert len(watched.watch.weighed) > 7
    assert {news for _, news in watched.watch.weighed} == {"NONE"}
    assert watched.calls == 2


def test_a_new_file_is_given_time_to_be_written(watch: Start, conf: Path) -> None:
    watched = watch(conf)
    with (conf / "b.ini").open("w") as file:
        file.write("half")
        file.flush()
        assert watched.watch.has_weighed.wait(DEADLINE)
        assert (watched.watch.weighed, watched.calls) == ([("b.ini", "CREATED")], 1)
        file.write(" and half")
    watched.await_call()
    assert watched.seen[-1]["b.ini"] == "half and half"


def test_a_file_that_is_never_closed_is_read_in_the_end(watch: Start, conf: Path) -> None:
    watched = watch(conf)
    with (conf / "b.ini").open("w") as file:
        file.write("all there is")
        file.flush()
        watched.await_call()
        assert watched.seen[-1]["b.ini"] == "all there is"


def test_a_config_map(watch: Start, conf: Path) -> None:
    """What a kubelet does: the files are links through `..data`, which is swapped; the old ones go."""
    (conf / "a.ini").unlink()
    (conf / "..1").mkdir()
    (conf / "..1" / "a.ini").write_text("one")
    (conf / "..data").symlink_to("..1")
    (conf / "a.ini").symlink_to("..data/a.ini")
    watched = watch(conf)
    for number in range(2, 5):
        fresh = conf / f"..{number}"
        fresh.mkdir()
        (fresh / "a.ini").write_text(str(number))
        watched.notices(lambda fresh=fresh: swap(conf / "..data", fresh.name))
        shutil.rmtree(conf / f"..{number - 1}")
    watched.notices(lambda: (conf / "..4" / "a.ini").write_text("in place"))


def test_a_drop_in_that_is_a_link(watch: Start, conf: Path, tmp_path: Path) -> None:
    """The file it points to, the links on the way, and a new target count."""
    store = tmp_path / "store"
    (store / "v1").mkdir(parents=True)
    (store / "v2").mkdir()
    for version in ("v1", "v2"):
        (store / version / "b.conf").write_text(version)
    (store / "current").symlink_to("v1")
    (conf / "b.ini").symlink_to(store / "current" / "b.conf")
    watched = watch(conf)
    watched.notices(lambda: (store / "v1" / "b.conf").write_text("in place"))
    watched.notices(lambda: write_and_rename(store / "v1" / "b.conf", "renamed"))
    watched.notices(lambda: swap(store / "current", "v2"))
    watched.notices(lambda: (store / "v2" / "b.conf").write_text("in place"))
    watched.notices(lambda: swap(conf / "b.ini", str(store / "v1" / "b.conf")))
    watched.notices(lambda: (store / "v1" / "b.conf").unlink())
    watched.notices(lambda: (store / "v1" / "b.conf").write_text("back"))
    assert not watched.events


def test_links_in_a_circle_are_followed_to_no_end(watch: Start, conf: Path) -> None:
    (conf / "b.ini").symlink_to("c.ini")
    (conf / "c.ini").symlink_to("b.ini")
    watched = watch(conf)
    watched.notices(lambda: write_and_rename(conf / "c.ini", "a file at last"))


def test_a_directory_that_is_deleted_and_made_again(watch: Start, conf: Path) -> None:
    watched = watch(conf)
    watched.notices(lambda: shutil.rmtree(conf.parent))
    watched.notices(lambda: conf.mkdir(parents=True))
    watched.notices(lambda: (conf / "a.ini").write_text("two"))


def test_a_directory_in_use_that_is_deleted_and_made_again(watch: Start, conf: Path) -> None:
    watched = watch(conf)
    user = os.open(conf, os.O_RDONLY)
    try:
        watched.notices(lambda: shutil.rmtree(conf))
        watched.notices(lambda: conf.mkdir())
        watched.notices(lambda: (conf / "a.ini").write_text("two"))
    finally:
        os.close(user)


def test_a_directory_that_another_takes_the_place_of(watch: Start, conf: Path) -> None:
    watched = watch(conf)
    fresh = conf.with_name("fresh")
    fresh.mkdir()
    (fresh / "a.ini").write_text("two")

    def replace() -> None:
        conf.rename(conf.with_name("old"))
        fresh.rename(conf)

    places = len(watched.watch._watched)
    watched.notices(replace)
    watched.notices(lambda: (conf / "a.ini").write_text("three"))
    assert len(watched.watch._watched) == places


def test_a_directory_that_is_a_link(watch: Start, conf: Path) -> None:
    link = conf.with_name("link")
    link.symlink_to("conf.d")
    other = conf.with_name("other")
    other.mkdir()
    watched = watch(link)
    watched.notices(lambda: (conf / "a.ini").write_text("two"))
    watched.notices(lambda: swap(link, "other"))
    watched.notices(lambda: (other / "a.ini").write_text("three"))


def test_a_directory_that_comes_later(watch: Start, tmp_path: Path) -> None:
    directory = tmp_path / "not" / "yet" / "conf.d"
    watched = watch(directory)
    watched.notices(lambda: directory.mkdir(parents=True))
    watched.notices(lambda: (directory / "a.ini").write_text("one"))
    assert not watched.events


def test_a_file_where_a_directory_should_be(watch: Start, tmp_path: Path) -> None:
    place = tmp_path / "conf.d"
    place.write_text("no directory")
    for directory in (place, place / "deeper"):
        watched = watch(directory)

        def replace() -> None:
            place.unlink()
            directory.mkdir(parents=True)  # noqa: B023 - called in the same turn

        watched.notices(replace)
        watched.notices(lambda: (directory / "a.ini").write_text("one"))  # noqa: B023 - as above
        shutil.rmtree(place)
        place.write_text("no directory")


def test_events_that_the_kernel_dropped_count_as_a_change(
    watch: Start, conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = watch(conf)
    overflow = module._EVENT.pack(-1, 0x4000, 0, 0)
    monkeypatch.setattr(module._Inotify, "read", lambda queue: os.read(queue.descriptor, 65536) and overflow)
    (conf / "ignored").write_text("x")
    watched.await_call()


def fail_with(code: int) -> Callable[..., Any]:
    def fail(*_: Any) -> int:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize(
    ("method", "code", "cause"),
    [
        ("__init__", errno.EMFILE, "inotify is not available: too many are in use"),
        ("__init__", errno.ENOSYS, "inotify is not available: Function not implemented"),
        ("add", errno.ENOSPC, "cannot be watched: no watches are left: raise fs.inotify.max_user_watches"),
        ("add", errno.EACCES, "cannot be watched: Permission denied"),
    ],
)
def test_contents_are_compared_where_the_kernel_does_not_help(
    watch: Start, conf: Path, monkeypatch: pytest.MonkeyPatch, method: str, code: int, cause: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module._Inotify, method, fail_with(code))
        watched = watch(conf, interval=0.01)
        name, fields = watched.events[0]
        assert (name, fields["directory"], fields["interval"]) == ("watch_degraded", str(conf), 0.01)
        assert cause in fields["cause"]
        watched.notices(lambda: (conf / "a.ini").write_text("two"))
        watched.notices(lambda: (conf / "a.ini").unlink())
        watched.notices(lambda: conf.rmdir())
        watched.notices(lambda: conf.mkdir())
        (conf / "no.ini").mkdir()
        os.mkfifo(conf / "fifo.ini")
        watched.await_call()
        assert len(watched.events) == 1
    # What failed is tried again at the next change.
    watched.notices(lambda: (conf / "a.ini").write_text("three"))
    assert watched.watch._cause == ""


def test_a_file_system_without_reports_is_compared_too(
    watch: Start, conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = {"nfs4": conf.stat().st_dev}
    monkeypatch.setattr(paths, "_file_systems", lambda: {number: name for name, number in kind.items()})
    watched = watch(conf, interval=0.01)
    assert watched.events[0][1]["cause"] == "nfs4 does not report every change"
    watched.notices(lambda: (conf / "a.ini").write_text("two"))


def test_stop_gives_everything_back(conf: Path) -> None:
    Watched(conf).watch.stop()
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    watched = Watched(conf)
    watched.watch.stop()
    calls = watched.calls
    (conf / "a.ini").write_text("two")
    gevent.sleep(0)
    assert watched.calls == calls
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_directory_in_motion_gets_another_round(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(100))
    moving = Watch(DropIns(conf), lambda: None, lambda name, **fields: None)
    scan = DropIns(conf).scan()
    monkeypatch.setattr(
        module, "_in_thread", lambda *_: scan._replace(names={**scan.names, f"/{next(numbers)}": set()})
    )
    moving._settle()
    assert moving._news is module._News.CHANGED
    moving.stop()


def test_a_directory_on_the_way_that_cannot_be_listed_is_no_degradation(
    watch: Start, conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = module._Inotify.add

    def refuse_root(queue: Any, directory: str, mask: int) -> int:
        return fail_with(errno.EACCES)() if directory == "/" else add(queue, directory, mask)

    monkeypatch.setattr(module._Inotify, "add", refuse_root)
    watched = watch(conf)
    assert not watched.events
    watched.notices(lambda: (conf / "a.ini").write_text("two"))


def test_errors_of_the_kernel_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    queue = module._Inotify()
    try:
        with pytest.raises(FileNotFoundError):
            queue.add(str(tmp_path / "none"), module._VITAL)
        assert queue.read() == b""
    finally:
        os.close(queue.descriptor)
    monkeypatch.setattr(module.ctypes, "CDLL", lambda *_, **__: object())
    with pytest.raises(OSError, match="not implemented"):
        module._Inotify()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A mounted Secret of Kubernetes: the file is a link into a directory that is a link."""
    mount = tmp_path / "secret"
    for version in ("1", "2"):
        (mount / f"..{version}").mkdir(parents=True)
        (mount / f"..{version}" / "tls.key").write_text(version)
    (mount / "..data").symlink_to("..1")
    (mount / "tls.key").symlink_to("..data/tls.key")
    return mount / "tls.key"


@pytest.mark.parametrize(
    "change",
    [
        lambda file: swap(file.parent / "..data", "..2"),
        lambda file: (file.parent / "..1" / "tls.key").write_text("3"),
        lambda file: write_and_rename(file, "3"),
        lambda file: shutil.rmtree(file.parent),
    ],
)
def test_files_are_followed_through_links(secret: Path, change: Callable[[Path], Any]) -> None:
    seen: list[str | None] = []
    called = Event()

    def on_change() -> None:
        seen.append(text(secret))
        called.set()

    watch = Watch(Files([str(secret)], "certificates"), on_change, lambda name, **fields: None)
    watch.start()
    try:
        assert called.wait(DEADLINE)
        change(secret)
        now = text(secret)
        with gevent.Timeout(DEADLINE, AssertionError("the change was not noticed")):
            while seen[-1] != now:
                called.clear()
                called.wait()
    finally:
        watch.stop()


def test_files_are_compared_where_the_kernel_does_not_help(
    secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module._Inotify, "__init__", fail_with(errno.EMFILE))
    called, events = Event(), []
    watch = Watch(
        Files([str(secret)], "the files of certificates"),
        called.set,
        lambda name, **fields: events.append((name, fields["directory"])),
        0.01,
    )
    watch.start()
    try:
        assert called.wait(DEADLINE)
        called.clear()
        swap(secret.parent / "..data", "..2")
        assert called.wait(DEADLINE), "nothing was noticed"
    finally:
        watch.stop()
    assert events == [("watch_degraded", "the files of certificates")]
