"""Writes the parts of the manual that are generated: `make docs`; a test holds them to the code."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from nexus_vmm.config import table as config
from nexus_vmm.states import LIVE, TABLE, Event, State

DOCS = Path(__file__).parents[1] / "docs"
FIRST = State.RUNNING
"""Where every start leads."""


def state_diagram() -> str:
    """Return `nexus_vmm.states.TABLE` as a diagram in Mermaid's language.

    Steps that bring no change are left out, but for a second boot. What all live states have in
    common is drawn once, as of all.
    """
    inside = [_arrow("[*]", FIRST)]
    outside = [_arrow("[*]", State.CREATED, "create")]
    for (old, new), events in _steps().items():
        if old in LIVE and new in LIVE:
            inside.append(_arrow(old, new, *events))
        elif old in LIVE:
            # Each of them leads out in the same way: said once.
            common = _arrow("live", new, *events)
            if common not in outside:
                outside.append(common)
        else:
            outside.append(_arrow(old, "live" if new is FIRST else new, *events))
    outside.append(_arrow(State.DELETED, "[*]"))
    return "\n".join(
        [
            "stateDiagram-v2",
            "    state live {",
            *(f"    {line}" for line in inside),
            "    }",
            *outside,
        ]
    )


def with_state_diagram(page: str) -> str:
    """Return the page of the architecture with the diagram as it is now."""
    fenced = f"```mermaid\n{state_diagram()}\n```\n"
    page, found = re.subn(
        r"```mermaid\nstateDiagram-v2\n.*?```\n", lambda _: fenced, page, flags=re.DOTALL
    )
    if found != 1:
        raise ValueError(f"the page has {found} state diagrams, not one")
    return page


def settings() -> str:
    """Return `nexus_vmm.config.table.TABLE` as a table in Markdown."""
    rows = [("setting", "default", "unit", "range", "meaning"), ("---",) * 5]
    for setting in config.TABLE.values():
        default = f"`{setting.default}`" if setting.default else "none"
        cells = (setting.unit, setting.kind.range, setting.description)
        rows.append((f"`{setting.name}`", default, *cells))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows).replace("| --- ", "|---")


def with_settings(page: str) -> str:
    """Return the page of the settings with their table as it is now."""
    page, found = re.subn(r"\| setting \|.*\n(\|.*\n)+", lambda _: settings(), page)
    if found != 1:
        raise ValueError(f"the page has {found} tables of settings, not one")
    return page


def _steps() -> dict[tuple[State, State], list[Event]]:
    """Return what leads from each state to each other, in the order in which both are defined."""
    steps = defaultdict(list)
    for old, event, new in (
        (old, event, TABLE.get((old, event))) for old in State for event in Event
    ):
        if new and (old is not new or event is Event.BOOT_AGAIN):
            steps[old, new].append(event)
    for new in State:
        if new not in LIVE and len({tuple(steps.get((old, new), ())) for old in LIVE}) > 1:
            raise ValueError(f"the live states lead to {new} in different ways: draw each")
    return dict(steps)


def _arrow(old: str, new: str, *events: str) -> str:
    return f"    {old} --> {new}" + (f": {', '.join(events)}" if events else "")


def main() -> None:
    """Write all of them."""
    for name, renew in (("architecture", with_state_diagram), ("settings", with_settings)):
        page = DOCS / f"{name}.md"
        page.write_text(renew(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
