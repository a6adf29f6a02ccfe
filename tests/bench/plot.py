"""Plots as SVG, written by hand: panels of bars or of a line, side by side."""

from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT, _MARGIN = 300, 220, 46
_COLOURS = ("#3b6ea5", "#c8553d", "#7a9e7e", "#8d6a9f", "#b8860b")


@dataclass(frozen=True)
class Bars:
    """A panel: one bar for each label, with its value."""

    title: str
    unit: str
    values: dict


@dataclass(frozen=True)
class Line:
    """A panel: values over numbers."""

    title: str
    unit: str
    x_title: str
    points: list


def svg(title, panels):
    """Return the whole drawing."""
    width = len(panels) * _WIDTH
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{_HEIGHT + 30}">',
        '<g font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{_HEIGHT + 30}" fill="white"/>',
        f'<text x="10" y="20" font-size="14">{escape(title)}</text>',
    ]
    for number, panel in enumerate(panels):
        draw = _bars if isinstance(panel, Bars) else _line
        parts += [f'<g transform="translate({number * _WIDTH},30)">', *draw(panel), "</g>"]
    return "\n".join([*parts, "</g>", "</svg>", ""])


def _frame(panel, most):
    bottom, right = _HEIGHT - _MARGIN, _WIDTH - 12
    yield f'<text x="{_MARGIN}" y="14" font-weight="bold">{escape(panel.title)}</text>'
    for step in range(5):
        y = bottom - step * (bottom - 26) / 4
        yield f'<line x1="{_MARGIN}" y1="{y}" x2="{right}" y2="{y}" stroke="#ddd"/>'
        yield f'<text x="{_MARGIN - 4}" y="{y + 4}" text-anchor="end">{most * step / 4:.3g}</text>'
    yield f'<text x="{_MARGIN - 4}" y="18" text-anchor="end">{escape(panel.unit)}</text>'


def _bars(panel):
    most = max(panel.values.values()) * 1.1 or 1
    bottom, room = _HEIGHT - _MARGIN, (_WIDTH - _MARGIN - 12) / len(panel.values)
    yield from _frame(panel, most)
    for number, (label, value) in enumerate(panel.values.items()):
        height = value / most * (bottom - 26)
        x, colour = _MARGIN + number * room, _COLOURS[number % len(_COLOURS)]
        yield (
            f'<rect x="{x + room * 0.15:.1f}" y="{bottom - height:.1f}" width="{room * 0.7:.1f}" '
            f'height="{height:.1f}" fill="{colour}"/>'
        )
        middle = x + room / 2
        yield (
            f'<text x="{middle:.1f}" y="{bottom - height - 3:.1f}" text-anchor="middle">'
            f"{value:.3g}</text>"
        )
        yield (
            f'<text x="{middle:.1f}" y="{bottom + 14}" text-anchor="middle">{escape(label)}</text>'
        )


def _line(panel):
    most = max(y for _, y in panel.points) * 1.2 or 1
    last = max(x for x, _ in panel.points) or 1
    bottom, room = _HEIGHT - _MARGIN, _WIDTH - _MARGIN - 24
    yield from _frame(panel, most)
    places = [
        (_MARGIN + x / last * room, bottom - y / most * (bottom - 26)) for x, y in panel.points
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    yield f'<polyline points="{path}" fill="none" stroke="{_COLOURS[0]}" stroke-width="2"/>'
    for x, y in places:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{_COLOURS[0]}"/>'
    yield f'<text x="{_MARGIN}" y="{bottom + 14}">0</text>'
    yield f'<text x="{_MARGIN + room}" y="{bottom + 14}" text-anchor="end">{last}</text>'
    x, y = _MARGIN + room / 2, bottom + 28
    yield f'<text x="{x}" y="{y}" text-anchor="middle">{escape(panel.x_title)}</text>'
