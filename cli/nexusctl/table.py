"""Tables for people, cut to the width of the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexusctl.terminal import paint, printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_GAP = 2


def render(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    columns: int | None = None,
    styles: Mapping[str, str] | None = None,
) -> str:
    """Return the table as lines, the header first.

    `columns` is the width to fit into: the widest columns give way first, and what is cut ends
    in an ellipsis. `styles` maps the text of a cell to its style; None: no colours at all.
    """
    cells = [[printable(cell) for cell in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if columns is not None:
        _shrink(widths, columns)
    lines = []
    for number, row in enumerate(cells):
        fitted = [_fit(cell, size) for cell, size in zip(row, widths, strict=True)]
        fitted[-1] = fitted[-1].rstrip()
        if styles is not None:
            names = ["bold" if number == 0 else styles.get(cell, "") for cell in row]
            fitted = [paint(text, name) for text, name in zip(fitted, names, strict=True)]
        lines.append((" " * _GAP).join(fitted).rstrip() + "\n")
    return "".join(lines)


def _shrink(widths: list[int], columns: int) -> None:
    while sum(widths) + _GAP * (len(widths) - 1) > columns and max(widths) > 1:
        widths[widths.index(max(widths))] -= 1


def _fit(cell: str, size: int) -> str:
    return cell.ljust(size) if len(cell) <= size else cell[: size - 1] + "…"
