"""The house rules that no other tool checks: a test for every file, short files, declared names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.errors import REASONS
from sidecar.observe.events import EVENTS

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted(
    file.relative_to(ROOT)
    for pattern in ("*.py", "*.pyx")
    for file in (ROOT / "sidecar").rglob(pattern)
    if file.stem not in ("__init__", "__main__")
)
MAX_LINES = 400
#: File → (lines it may have, why it is longer than others).
LONG = {
    "sidecar/wire/head.pyx": (950, "the parser, its tables and the renderer share one layout of offsets"),
    "sidecar/wire/hpack.pyx": (800, "both directions share the code, the static and the dynamic table in C"),
    "sidecar/wire/h2_head.pyx": (500, "both directions share the tables of names and the lines of heads"),
    "sidecar/net/h2.pyx": (1500, "the connection and its streams share one layout and one buffer"),
    "sidecar/net/tls_channel.pyx": (900, "the channel and what OpenSSL calls for it share one layout"),
    "sidecar/net/channel.pyx": (650, "every wait and the buffers share one state in C"),
}
#: What events are told by: `Events.event`, and the callables that stand for it.
TELLING = {"event", "tell", "_event", "on_problem", "_on_problem"}


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_every_source_file_has_its_test(source: Path):
    """sidecar/net/dial.py → tests/net/test_dial.py or tests/net/test_net_dial.py."""
    folder = source.relative_to("sidecar").parent
    prefixed = "_".join([*folder.parts, source.stem])
    names = {f"test_{source.stem}.py", f"test_{prefixed}.py"}
    assert any((ROOT / "tests" / folder / name).exists() for name in names), (
        f"tests/{folder}: {sorted(names)}"
    )


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_a_file_is_short(source: Path):
    lines = len((ROOT / source).read_text(encoding="utf-8").splitlines())
    assert lines <= LONG.get(source.as_posix(), (MAX_LINES, ""))[0]


@pytest.mark.parametrize("name", LONG)
def test_a_long_file_is_there_and_long(name: str):
    """An exception that is not needed any more goes away."""
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) > MAX_LINES


@pytest.mark.parametrize("source", [source for source in SOURCES if source.suffix == ".pyx"], ids=str)
def test_a_compiled_file_has_its_types(source: Path):
    """mypy and readers see the .pyi; without it a compiled module would be Any."""
    assert (ROOT / source).with_suffix(".pyi").exists()


Known = dict[str, list[str]]


def literals(argument: ast.expr, known: Known) -> Iterator[str]:
    """The strings an argument can be: a literal, either of two, or what its variable was given."""
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        yield argument.value
    elif isinstance(argument, ast.IfExp):
        yield from literals(argument.body, known)
        yield from literals(argument.orelse, known)
    elif isinstance(argument, ast.Name):
        yield from known.get(argument.id, ())


def scopes(tree: ast.AST) -> Iterator[list[ast.AST]]:
    """The nodes of a module or function without those of the functions in it, then theirs."""
    own: list[ast.AST] = []
    inner: list[ast.AST] = []
    todo = [*ast.iter_child_nodes(tree)]
    while todo:
        node = todo.pop(0)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inner.append(node)
        else:
            own.append(node)
            todo += ast.iter_child_nodes(node)
    yield own
    for function in inner:
        yield from scopes(function)


def variables(nodes: list[ast.AST]) -> Known:
    """What the variables of a scope are given, as far as it is literal."""
    known: Known = {}
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            known.setdefault(node.targets[0].id, []).extend(literals(node.value, {}))
    return known


def first_arguments(text: str, callees: set[str]) -> Iterator[str]:
    """The first argument of every call of one of `callees` in Python, where it can be told."""
    for nodes in scopes(ast.parse(text)):
        known = variables(nodes)
        for node in nodes:
            if isinstance(node, ast.Call) and node.args:
                called = node.func
                name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
                if name in callees:
                    yield from literals(node.args[0], known)


def first_arguments_compiled(text: str, callees: set[str]) -> Iterator[str]:
    """The same in Cython, which Python cannot parse."""
    for match in re.finditer(r'\b(\w+)\(\s*"(\w+)"', text):
        if match[1] in callees:
            yield match[2]


def used(callees: set[str]) -> set[tuple[str, str]]:
    """(file, name) of every call."""
    found = set()
    for source in SOURCES:
        text = (ROOT / source).read_text(encoding="utf-8")
        read = first_arguments_compiled if source.suffix == ".pyx" else first_arguments
        found |= {(source.as_posix(), name) for name in read(text, callees)}
    return found


def test_every_event_that_is_told_is_declared():
    """A name that is not declared raises where it is told, which may be the one moment it was written for."""
    told = used(TELLING)
    assert len(told) >= 10, "the calls are not found any more: see TELLING"
    assert {(file, name) for file, name in told if name not in EVENTS} == set()


def test_every_declared_event_is_told():
    """An event that never comes is a promise to whoever alerts on it."""
    assert EVENTS.keys() - {name for _, name in used(TELLING)} == set()


def test_every_failure_has_a_declared_reason():
    raised = used({"Failure"})
    assert len(raised) >= 5
    assert {(file, name) for file, name in raised if name not in REASONS} == set()


def test_every_declared_reason_is_a_failure_somewhere():
    assert REASONS.keys() - {name for _, name in used({"Failure"})} == set()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('log.event("a", x=1)', ["a"]),
        ('self._event("a" if b else "c")', ["a", "c"]),
        ("event(name)", []),
        ('lambda: event(\n    "a",\n    x=1,\n)', ["a"]),
        ('eventful("a")', []),
        ('def f():\n    name = "a" if b else "c"\n    event(name)\n    event("d")', ["a", "c", "d"]),
        ('def f():\n    name = "a"\ndef g(name):\n    event(name)', []),
        (
            'class C:\n    def f(self):\n        def g():\n            event("a")\n        event("b")',
            ["b", "a"],
        ),
    ],
)
def test_calls_are_found(text: str, names: list[str]):
    assert list(first_arguments(text, TELLING)) == names
