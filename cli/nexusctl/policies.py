"""Policies and limits as options and files give them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nexus.netd.v1 import netd_pb2
from nexusctl import rules
from nexusctl.failure import USAGE, Failure

if TYPE_CHECKING:
    from argparse import Namespace

MODES: dict[str, netd_pb2.EgressMode.ValueType] = {
    "inherit": netd_pb2.EGRESS_MODE_UNSPECIFIED,
    "open": netd_pb2.EGRESS_MODE_OPEN,
    "none": netd_pb2.EGRESS_MODE_NONE,
    "rules": netd_pb2.EGRESS_MODE_RULES,
}
WORDS: dict[int, str] = {number: word for word, number in MODES.items()}

_FORM = 'the form is {"mode": "rules", "rules": [{"allow": "pypi.org:443/tcp"}]}'

LIMITS = {
    "egress_bytes": "up",
    "ingress_bytes": "down",
    "egress_packets": "up_packets",
    "ingress_packets": "down_packets",
    "connections": "connections",
}
"""Fields of Limits and the options for them."""


def of_options(mode: str | None, written: list[tuple[str, str]]) -> netd_pb2.EgressPolicy | None:
    """Return the policy that a word or rules ask for; None for neither. Raises Failure (USAGE)."""
    if mode and written:
        raise Failure(f"{mode} and rules exclude each other", "leave one of them out", USAGE)
    if written:
        return netd_pb2.EgressPolicy(mode=MODES["rules"], rules=rules.parse_all(written))
    return netd_pb2.EgressPolicy(mode=MODES[mode]) if mode else None


def of_text(name: str, text: str) -> netd_pb2.EgressPolicy:
    """Return the policy in a file, as `net policy --json` prints it. Raises Failure (USAGE)."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise Failure(f"{name} is no JSON: {error}", _FORM, USAGE) from error
    try:
        return of_options(*_read(document)) or netd_pb2.EgressPolicy()
    except Failure as error:
        raise Failure(f"{name}: {error.message}", error.way_out or _FORM, USAGE) from error


def _read(document: Any) -> tuple[str | None, list[tuple[str, str]]]:  # noqa: ANN401  # JSON is anything
    if not isinstance(document, dict) or document.get("mode") not in MODES:
        raise Failure(f"mode is not one of {', '.join(MODES)}")
    written = document.get("rules") or []
    if not isinstance(written, list):
        raise Failure("rules is no list")
    pairs = []
    for number, entry in enumerate(written):
        pair = tuple(entry.items()) if isinstance(entry, dict) else ()
        if len(pair) != 1 or pair[0][0] not in rules.ACTIONS or not isinstance(pair[0][1], str):
            raise Failure(f"rule {number} is neither an allow nor a deny with its text")
        pairs.append(pair[0])
    if document["mode"] == "rules" and not pairs:
        raise Failure("rules is empty; the mode none allows nothing")
    return None if document["mode"] == "rules" else document["mode"], pairs


def limits_of_options(options: Namespace) -> netd_pb2.Limits | None:
    """Return the limits that the options give, None for no option."""
    given = {
        field: value
        for field, option in LIMITS.items()
        if (value := getattr(options, option)) is not None
    }
    return netd_pb2.Limits(**given) if given else None
