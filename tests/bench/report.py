"""The results: medians, ratios of the row's subject to each neighbour, the table and the JSON document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median

from .rows import MB, Budget, Row

_HEADINGS = ("row", "proxy", "figure", "sidecar is", "budget", "", "requests/s", "p50", "p99", "core")


@dataclass(slots=True)
class RowResult:
    """What was measured for one row: by proxy, by figure, one value a round.

    Who is not in it for a reason of its own is told beside: `unable` is who was built without what the row
    speaks, `failed` is who could not be measured. Both hold the reason by the name of the proxy.
    """

    row: Row
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    unable: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, proxy: str, **figures: float) -> None:
        """Add the figures of one round."""
        series = self.samples.setdefault(proxy, {})
        for name, value in figures.items():
            series.setdefault(name, []).append(value)

    def drop(self, proxy: str, reason: str) -> None:
        """Take a proxy that failed out, with what was measured of it."""
        self.samples.pop(proxy, None)
        self.failed.setdefault(proxy, reason)  # what came first is the cause

    def median(self, proxy: str, figure: str) -> float | None:
        """The median over the rounds, or None if it was not measured."""
        values = self.samples.get(proxy, {}).get(figure)
        return median(values) if values else None

    def ratio(self, neighbour: str) -> float | None:
        """The median of the subject's figure over the neighbour's, each of the same round."""
        ours = self.samples.get(self.row.subject, {}).get(self.row.figure, [])
        theirs = self.samples.get(neighbour, {}).get(self.row.figure, [])
        if neighbour == self.row.subject or not ours or not theirs or min(theirs) <= 0:
            return None
        return median(our / their for our, their in zip(ours, theirs, strict=True))

    def budgeted(self, proxy: str) -> tuple[Budget, float | None] | None:
        """The budget that is set beside this proxy, and the value that it is held against if there is one."""
        for budget in self.row.budgets:
            if proxy in (budget.against or (self.row.subject,)):
                value = self.ratio(proxy) if budget.against else self.median(proxy, self.row.figure)
                return budget, value
        return None


def table(results: Iterable[RowResult]) -> str:
    """All results as one table, a line for each proxy of each row."""
    lines: list[tuple[str, ...]] = [_HEADINGS]
    for result in results:
        first = len(lines)
        proxies = [*result.samples, *result.unable, *result.failed]
        lines += [_line(result, proxy, not number) for number, proxy in enumerate(proxies)]
        if len(lines) > first:
            lines.append(("",) * len(_HEADINGS))
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADINGS))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(_aligned(line, widths) for line in lines).rstrip()


def _aligned(line: tuple[str, ...], widths: list[int]) -> str:
    # The first two columns, the budget and its verdict are words; the others are figures.
    words = {0, 1, 4, 5}
    cells = (
        cell.ljust(width) if column in words else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(line, widths, strict=True))
    )
    return "  ".join(cells).rstrip()


def _line(result: RowResult, proxy: str, is_first: bool) -> tuple[str, ...]:
    ratio = result.ratio(proxy)
    figure = result.median(proxy, result.row.figure)
    absent = "unable" if proxy in result.unable else "failed" if proxy in result.failed else ""
    limit, verdict = _budget_cells(result, proxy)
    return (
        result.row.title if is_first else "",
        proxy,
        absent if figure is None else amount(figure, result.row.figure),
        "" if ratio is None else f"{ratio:.2f} x",
        limit,
        verdict,
        *_load_cells(result, proxy),
    )


def _budget_cells(result: RowResult, proxy: str) -> tuple[str, str]:
    found = result.budgeted(proxy)
    if found is None:
        return "", ""
    budget, value = found
    words = ["<="]
    for bound, form in ((budget.limit, "{}"), (budget.stretch, "({})")):
        if bound is not None:
            words.append(form.format(f"{bound:g}" if budget.against else amount(bound, result.row.figure)))
    return " ".join(words), "" if value is None else budget.verdict(value)


def _load_cells(result: RowResult, proxy: str) -> tuple[str, ...]:
    rate = result.median(proxy, "requests_per_second")
    cells = ["" if rate is None else f"{rate:,.0f}"]
    for figure in ("p50_us", "p99_us"):
        value = result.median(proxy, figure)
        cells.append("" if value is None else f"{value / 1000:.2f} ms")
    busy = result.median(proxy, "core_busy")
    return (*cells, "" if busy is None else f"{busy:.0%}")


def amount(value: float, figure: str) -> str:
    """A value with its unit: microseconds for `cpu_us`, `seconds`, MB for a `size`, else bytes."""
    if figure == "cpu_us":
        return f"{value:,.1f} us" if value < 1000 else f"{value:,.0f} us"
    if figure == "seconds":
        return f"{value:.3f} s" if value < 1 else f"{value:.2f} s"
    if figure == "size":
        return f"{value / MB:.1f} MB"
    if abs(value) >= 1024 * 1024:
        return f"{value / 1024 / 1024:.1f} MiB"
    return f"{value / 1024:.1f} KiB"


def document(results: Iterable[RowResult], about: Mapping[str, object]) -> dict[str, object]:
    """Everything that was measured, ready for JSON: medians, ratios, verdicts and each round's values."""
    return {**about, "rows": [_row_document(result) for result in results]}


def _row_document(result: RowResult) -> dict[str, object]:
    row = result.row
    return {
        "name": row.name,
        "title": row.title,
        "figure": row.figure,
        "connections": row.connections,
        "kind": row.kind,
        "subject": row.subject,
        "unable": result.unable,
        "failed": result.failed,
        "proxies": {proxy: _proxy_document(result, proxy) for proxy in result.samples},
    }


def _proxy_document(result: RowResult, proxy: str) -> dict[str, object]:
    series = result.samples[proxy]
    told: dict[str, object] = {
        "median": {figure: median(values) for figure, values in series.items()},
        "rounds": series,
        "ratio": result.ratio(proxy),
    }
    found = result.budgeted(proxy)
    if found is not None:
        budget, value = found
        told["budget"] = {
            "limit": budget.limit,
            "stretch": budget.stretch,
            "verdict": None if value is None else budget.verdict(value),
        }
    return told
