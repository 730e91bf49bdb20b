"""Differences with their intervals as one SVG: a line each, readable on light and on dark pages, with text as text.

The picture brings its own background, in the colours of whoever looks at it (prefers-color-scheme), so that it stands
on any page. The same rows give the same bytes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, LINE, TOP, BOTTOM = 920, 26, 58, 56  # pixels
LEFT, RIGHT = 430, 200  # of the names, and of what is said of each
STYLE = """\
  .page { fill: #ffffff } text { fill: #1f2328; font: 13px system-ui, "Segoe UI", Helvetica, Arial, sans-serif }
  .title { font-weight: 600; font-size: 15px } .note, .tick { fill: #59636e; font-size: 12px }
  .grid { stroke: #d1d9e0 } .zero { stroke: #59636e; stroke-width: 1.4 } .margin { fill: #59636e; opacity: .12 }
  .good { stroke: #1a7f37; fill: #1a7f37 } .bad { stroke: #bc4c00; fill: #bc4c00 }
  .open { stroke: #59636e; fill: #59636e } .plain { stroke: #0969da; fill: #0969da } .bar { stroke-width: 2.4 }
  text.good, text.bad, text.open, text.plain { stroke: none } .hollow { fill: #ffffff; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117 } text { fill: #e6edf3 } .note, .tick { fill: #9198a1 }
    .grid { stroke: #3d444d } .zero { stroke: #9198a1 } .margin { fill: #9198a1 }
    .good { stroke: #3fb950; fill: #3fb950 } .bad { stroke: #f0883e; fill: #f0883e }
    .open { stroke: #9198a1; fill: #9198a1 } .plain { stroke: #58a6ff; fill: #58a6ff } .hollow { fill: #0d1117 }
  }"""


@dataclass(frozen=True)
class Line:
    """One difference, nats per token."""

    name: str
    mean: float
    low: float  # NaN without an interval
    high: float
    said: str  # at the right
    kind: str  # good, bad, open or plain: its colour
    hollow: bool = False  # it reads later tokens


def forest(lines: Sequence[Line], title: str, note: str, margin: float | None = None) -> str:
    """The picture, a line for each difference in their order; `margin` shades what counts as the same."""
    height = TOP + LINE * len(lines) + BOTTOM
    scale = _Scale.of(lines, margin)
    base = TOP + LINE * len(lines)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(title)}">',
        f"<style>\n{STYLE}\n</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}" rx="8"/>',
        f'<text class="title" x="16" y="30">{escape(title)}</text>',
    ]
    if margin is not None:
        left, right = scale.at(-margin), scale.at(margin)
        size = f'width="{round(right - left, 1)}" height="{base - TOP + 6}"'
        parts.append(f'<rect class="margin" x="{left}" y="{TOP - 6}" {size}/>')
    for tick in scale.ticks:
        kind = "zero" if tick == 0 else "grid"
        parts.append(f'<line class="{kind}" x1="{scale.at(tick)}" x2="{scale.at(tick)}" y1="{TOP - 6}" y2="{base}"/>')
        label = "0" if tick == 0 else f"{tick:+.{scale.digits}f}".replace("-", "−")
        parts.append(f'<text class="tick" x="{scale.at(tick)}" y="{base + 17}" text-anchor="middle">{label}</text>')
    for place, line in enumerate(lines):
        parts += _line(line, TOP + LINE * place + LINE // 2 - 3, scale)
    parts.append(f'<text class="note" x="16" y="{height - 14}">{escape(note)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _line(line: Line, y: int, scale: "_Scale") -> list[str]:
    known = not math.isnan(line.low)
    low, high = (scale.clipped(line.low), scale.clipped(line.high)) if known else (line.mean, line.mean)
    dot = f"{line.kind} hollow" if line.hollow else line.kind
    return [
        f'<text x="{LEFT - 14}" y="{y + 5}" text-anchor="end">{escape(line.name)}</text>',
        *([f'<line class="bar {line.kind}" x1="{scale.at(low)}" x2="{scale.at(high)}" y1="{y}" y2="{y}"/>'] * known),
        f'<circle class="{dot}" cx="{scale.at(scale.clipped(line.mean))}" cy="{y}" r="4.5"/>',
        f'<text class="{line.kind}" x="{WIDTH - RIGHT + 14}" y="{y + 5}">{escape(line.said)}</text>',
    ]


@dataclass(frozen=True)
class _Scale:
    """From nats per token to pixels."""

    low: float
    high: float
    step: float

    @classmethod
    def of(cls, lines: Sequence[Line], margin: float | None) -> "_Scale":
        """Holds every mean, and intervals as far as they leave the rest readable."""
        means = [0.0, *(line.mean for line in lines), *((-margin, margin) if margin is not None else ())]
        reach = (max(means) - min(means)) or 0.01
        ends = [end for line in lines for end in (line.low, line.high) if not math.isnan(end)]
        low = max(min([*means, *ends]), min(means) - reach / 2)
        high = min(max([*means, *ends]), max(means) + reach / 2)
        step = _nice((high - low) / 6)
        return cls(low - 0.05 * (high - low), high + 0.05 * (high - low), step)

    @property
    def ticks(self) -> list[float]:
        first, last = math.ceil(self.low / self.step), math.floor(self.high / self.step)
        return [round(number * self.step, 9) for number in range(first, last + 1)]

    @property
    def digits(self) -> int:
        return max(0, -math.floor(math.log10(self.step) + 1e-9))

    def clipped(self, value: float) -> float:
        return float(np.clip(value, self.low, self.high))

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)


def _nice(step: float) -> float:
    """1, 2 or 5 times a power of ten, the next one above."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))
