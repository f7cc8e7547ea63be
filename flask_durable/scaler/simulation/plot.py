"""Waits and workers over time, as one self-contained SVG.

A plotting library would weigh more than the few lines drawn here. As text, the SVG also
follows the reader's preference for light or dark.
"""

from __future__ import annotations

import math
import typing as t
from dataclasses import dataclass
from xml.etree import ElementTree

from .comparison import Result
from .outcome import percentiles

_WIDTH, _LEFT, _RIGHT = 900, 64, 16
_PANEL, _GAP, _TOP, _LINE = 200, 56, 78, 20
#: The number of parts into which the time is divided.
_PARTS = 90
_COLOURS = ("#2f7fe0", "#d64550", "#d9901a", "#2e9e5b", "#9061d6", "#7a8793")
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f; }
.title { font-weight: 600; font-size: 14px; }
.paper { fill: #ffffff; }
.grid { stroke: #d8dee4; }
.wanted { stroke: #24292f; stroke-dasharray: 5 4; }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round; stroke-linecap: round; }
.first { stroke-width: 2.6; }
@media (prefers-color-scheme: dark) {
  text { fill: #d6dde5; }
  .paper { fill: #0d1117; }
  .grid { stroke: #30363d; }
  .wanted { stroke: #d6dde5; }
}
"""
_TIMES = (60, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400, 7 * 86400)
_SIZES = (0, 1, 3, 10, 30, 100, 300, 1000, 3000)
_WAITS = ((1, "1 s"), (10, "10 s"), (60, "1 min"), (600, "10 min"), (3600, "1 h"))


@dataclass(frozen=True)
class _Panel:
    """One pair of axes.

    :param top: The upper edge, in pixels from above.
    :param end: The last time.
    :param most: The highest value, after *scale*.
    :param scale: The function that is applied to a value before it is drawn.
    """

    top: float
    end: float
    most: float
    scale: t.Callable[[float], float]

    def x(self, time: float) -> float:
        share = min(time / self.end, 1.0)
        return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * share, 1)

    def y(self, value: float) -> float:
        height = min(self.scale(value) / self.most, 1.0)
        return round(self.top + _PANEL * (1 - height), 1)


def plot(results: t.Sequence[Result], title: str) -> str:
    """Return an SVG with the 95th percentile of the waits and the workers over time.

    :param results: The results to draw, the most important one first.
    :param title: The heading.
    """
    end = _end(results)
    legend = _LINE * math.ceil(len(results) / 3)
    top = _TOP + legend
    waits = {result.name: _waits(result, end) for result in results}
    longest = max(
        (w for line in waits.values() for _, w in line if w < math.inf), default=1.0
    )
    size = max(result.most for result in results)
    above = _Panel(top, end, _seconds(max(longest, 10)), _seconds)
    below = _Panel(top + _PANEL + _GAP, end, _workers(max(size, 1)), _workers)
    root = _root(below.top + _PANEL + 40, title)
    _legend(root, results)
    _caption(root, above, "wait, 95th percentile of the jobs that arrive at a time")
    for seconds, label in _WAITS:
        if _seconds(seconds) <= above.most:
            _level(root, above, seconds, label)
    wanted = sorted({result.options.goal.desired_wait for result in results})
    for wait in wanted:
        _level(root, above, wait, "", "wanted")
    _caption(root, below, "workers, those that boot included")
    for workers in _SIZES:
        if workers <= size:
            _level(root, below, workers, str(workers))
    _clock(root, above, below)
    for number, result in reversed(list(enumerate(results))):
        _draw(root, number, result.name, _path(above, waits[result.name]))
        _draw(root, number, result.name, _stairs(below, result))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _end(results: t.Iterable[Result]) -> float:
    """Return a time soon after the last arrival, to show the rest being done."""
    jobs = (job for result in results for job in result.outcome.jobs)
    last = max((time for time, wait in jobs if wait < math.inf), default=0.0)
    return max(1.02 * last, 60.0)


def _seconds(value: float) -> float:
    return math.log10(max(value, 1.0))


def _workers(value: float) -> float:
    return math.log10(1 + value)


def _waits(result: Result, end: float) -> list[tuple[float, float]]:
    """Return the 95th percentile of the waits, by the part of time of the arrivals."""
    parts: dict[int, list[float]] = {}
    for time, wait in result.outcome.jobs:
        if time <= end:  # otherwise the job never began, and this is the end of all
            parts.setdefault(int(_PARTS * time / end), []).append(wait)
    middle = end / _PARTS / 2
    return [
        (part * end / _PARTS + middle, percentiles(waits, 0.95)[0])
        for part, waits in sorted(parts.items())
    ]


# -- Elements ------------------------------------------------------------------------


def _root(height: float, title: str) -> ElementTree.Element:
    root = ElementTree.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {_WIDTH} {height:g}",
            "role": "img",
        },
    )
    ElementTree.SubElement(root, "title").text = title
    ElementTree.SubElement(root, "style").text = _STYLE
    paper = {"class": "paper", "width": "100%", "height": "100%"}
    ElementTree.SubElement(root, "rect", paper)
    _text(root, _LEFT, 26, title, kind="title")
    return root


def _text(
    root: ElementTree.Element,
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    kind: str = "",
) -> None:
    attributes = {"x": f"{x:g}", "y": f"{y:g}", "text-anchor": anchor}
    if kind:
        attributes["class"] = kind
    ElementTree.SubElement(root, "text", attributes).text = text


def _stroke(
    root: ElementTree.Element, kind: str, x1: float, y1: float, x2: float, y2: float
) -> None:
    ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    attributes = {"class": kind, **{name: f"{at:g}" for name, at in ends.items()}}
    ElementTree.SubElement(root, "line", attributes)


def _legend(root: ElementTree.Element, results: t.Sequence[Result]) -> None:
    for number, result in enumerate(results):
        x = _LEFT + number % 3 * 280
        y = 50 + number // 3 * _LINE
        _draw(root, number, result.name, f"M{x} {y - 4}h22")
        _text(root, x + 30, y, f"{result.name}: {100 * result.missed:.1f} % missed")


def _caption(root: ElementTree.Element, panel: _Panel, text: str) -> None:
    _text(root, _LEFT, panel.top - 10, text)


def _level(
    root: ElementTree.Element,
    panel: _Panel,
    value: float,
    label: str,
    kind: str = "grid",
) -> None:
    y = panel.y(value)
    _stroke(root, kind, _LEFT, y, _WIDTH - _RIGHT, y)
    _text(root, _LEFT - 8, y + 4, label, anchor="end")


def _clock(root: ElementTree.Element, above: _Panel, below: _Panel) -> None:
    step = next((step for step in _TIMES if above.end <= 9 * step), _TIMES[-1])
    for time in range(0, int(above.end) + 1, step):
        x = above.x(time)
        for panel in (above, below):
            _stroke(root, "grid", x, panel.top, x, panel.top + _PANEL)
        bottom = below.top + _PANEL + 20
        _text(root, x, bottom, _moment(time, step), anchor="middle")


def _moment(time: int, step: int) -> str:
    if step >= 86400:
        return f"day {time // 86400}"
    return f"{time // 3600}:{time % 3600 // 60:02}"


# -- Lines ---------------------------------------------------------------------------


def _draw(root: ElementTree.Element, number: int, name: str, path: str) -> None:
    attributes = {
        "class": "line" if number else "line first",
        "stroke": _COLOURS[number % len(_COLOURS)],
        "d": path,
    }
    line = ElementTree.SubElement(root, "path", attributes)
    ElementTree.SubElement(line, "title").text = name


def _path(panel: _Panel, points: t.Sequence[tuple[float, float]]) -> str:
    """Return a line through *points*, broken where no job arrived."""
    longest = 1.5 * panel.end / _PARTS
    found, before = [], -math.inf
    for time, value in points:
        broken = time - before > longest
        # A short line makes an isolated point visible.
        to = f"M{panel.x(time) - 4:g} {panel.y(value)}h8" if broken else ""
        found.append(to or f"L{panel.x(time)} {panel.y(value)}")
        before = time
    return "".join(found)


def _stairs(panel: _Panel, result: Result) -> str:
    """Return the workers over time, as the most in each part of it."""
    part = panel.end / (4 * _PARTS)
    highest: dict[int, int] = {}
    workers = 0
    for time, after in result.outcome.sizes:
        if time > panel.end:
            break
        number = int(time / part)
        highest[number] = max(highest.get(number, workers), after)
        highest[number + 1] = workers = after
    del highest[max(highest)]  # the part after the last change
    found, *rest = [(panel.x(n * part), panel.y(w)) for n, w in sorted(highest.items())]
    stairs = "".join(f"H{x:g}V{y:g}" for x, y in rest)
    return f"M{found[0]:g} {found[1]:g}{stairs}H{panel.x(result.outcome.end):g}"
