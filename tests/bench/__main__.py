"""The command: `python -m tests.bench` from the root of the checkout.

The whole takes about half an hour. `--rows tls,http2` is what goes over TLS and HTTP/2; it takes h2load and
curl beside wrk. A proxy that cannot take part in a row is told with the reason, and the others are measured.

All proxies write their files below the folder for temporary files (`TMPDIR`); one in memory takes the disk
out of the comparison.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .certificate import make_certificate
from .choice import chosen, installed, told_missing, workspace
from .load import find_wrk
from .neighbours import PROXIES
from .process import BenchError, cores, pinned, raise_file_limit
from .proxy import Proxy
from .report import RowResult, document, table
from .rows import BINARY, ROWS, Row
from .scenario import WARM_UP_SECONDS, Bench
from .upstream import start_upstream


def main() -> int:
    """Measure, print the table, write the JSON file; 0 if all could be measured, whatever the verdicts."""
    options = arguments(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        bench(options)
    except BenchError as failure:
        print(f"bench: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description="CPU and memory of sidecar beside its neighbours."
    )
    names = ", ".join(proxy.name for proxy in PROXIES)
    rows = ", ".join(dict.fromkeys(name for row in ROWS for name in (row.name, row.group) if name))
    parser.add_argument("--rounds", type=positive, help="runs of each proxy in each row (5; with --quick 2)")
    parser.add_argument("--seconds", type=positive, help="length of a run (3; with --quick 1)")
    parser.add_argument("--only", type=chosen(PROXIES), default=(), help=f"these proxies, of {names}")
    parser.add_argument("--rows", type=chosen(ROWS), default=ROWS, help=f"these rows or groups, of {rows}")
    parser.add_argument(
        "--json", type=Path, default=Path("bench.json"), help="the file of results (bench.json)"
    )
    parser.add_argument("--quick", action="store_true", help="short and few runs: does it work at all?")
    options = parser.parse_args(words)
    if not options.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder {options.json.absolute().parent}")
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.seconds = options.seconds or (1 if options.quick else 3)
    return options


def positive(text: str) -> int:
    """A whole number above zero."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not above zero")
    return number


def bench(options: argparse.Namespace) -> None:
    """Run everything that the options ask for.

    Raises `BenchError` if something cannot be measured.
    """
    find_wrk()
    proxies, missing = installed(options.only)
    versions = {proxy.name: proxy.version() for proxy in proxies}
    print("measured: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    if missing:
        print("not installed: " + ", ".join(told_missing(missing)))
    proxy_core, load_core = cores()
    results: list[RowResult] = []
    failures: list[str] = []
    files = raise_file_limit()
    with workspace() as folder:
        certificate = make_certificate(folder / "certificate")
        with pinned(load_core):
            upstream = start_upstream(folder / "upstream", certificate)
        try:
            how = Bench(
                rounds=options.rounds,
                seconds=options.seconds,
                proxy_core=proxy_core,
                load_core=load_core,
                upstream=upstream,
                certificate=certificate,
                folder=folder,
                files=files,
                say=say,
            )
            for row in options.rows:
                try:
                    if taking := taking_part(row, proxies, options.only):
                        results.append(how.measure(row, taking))
                        failures += absences(results[-1], results[-1].failed)
                except BenchError as failure:
                    failures.append(f"{row.title}: {failure}")
        finally:
            upstream.server.stop()
    about = {
        "taken": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(proxy_core, load_core),
        "versions": versions,
        "not_installed": missing,
        "not_measured": failures,
        "settings": {
            "rounds": options.rounds,
            "seconds": options.seconds,
            "warm_up_seconds": WARM_UP_SECONDS,
        },
    }
    say("")
    print(f"\n{table(results)}\n")
    for line in (line for result in results for line in absences(result, result.unable)):
        print(f"unable: {line}")
    print(f"{notes(results)}Every round is in {options.json}.")
    options.json.write_text(json.dumps(document(results, about), indent=1) + "\n")
    if failures:
        raise BenchError("not measured:\n" + "\n".join(failures))


def absences(result: RowResult, reasons: Mapping[str, str]) -> list[str]:
    """A line for each proxy that is not in a result, with the reason."""
    return [f"{result.row.title}: {proxy}: {reason}" for proxy, reason in reasons.items()]


def taking_part(row: Row, proxies: Sequence[Proxy], only: Sequence[Proxy]) -> list[Proxy]:
    """Who is measured in a row; empty if the one it is about is not here.

    The binary runs the same code as the installed command: it is in the rows about it, and where it is named.
    """
    names = {proxy.name for proxy in proxies}
    if row.subject == BINARY and BINARY not in names:
        return []
    return [proxy for proxy in proxies if proxy.name != BINARY or row.subject == BINARY or only]


def machine(proxy_core: int, load_core: int) -> dict[str, object]:
    """What the figures depend on."""
    models = (
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    )
    return {
        "processor": next(models, ": unknown").partition(":")[2].strip(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "proxy_core": proxy_core,
        "load_core": load_core,
    }


def say(text: str) -> None:
    """Tell what is being done, on the terminal only."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def notes(results: Sequence[RowResult]) -> str:
    """What a reader of the table must know."""
    accounts = [
        exact
        for result in results
        for series in result.samples.values()
        for exact in series.get("by_schedstat", [])
    ]
    text = (
        "Figures are medians over rounds; 'sidecar is' is the median of the ratios within a round, of the\n"
        "binary in the rows about it;\n"
        "the stretch of a budget is in parentheses; 'core' is how busy the proxy kept its core.\n"
    )
    if not accounts:
        return text
    account = (
        "the scheduler's nanoseconds (schedstat)" if all(accounts) else "clock ticks (stat) in some runs"
    )
    return f"{text}CPU time is that of the whole process tree, from {account}.\n"


if __name__ == "__main__":
    sys.exit(main())
