"""What is shown of settings: dictionaries with stable keys, for --json and for people alike."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nexusctl import views

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nexus.vmm.v1 import settings_pb2


def setting(setting: settings_pb2.Setting) -> dict[str, Any]:
    """Return a setting; its value and default are texts."""
    return {
        "name": setting.name,
        "value": setting.value,
        "default": setting.default_value,
        "unit": setting.unit,
        "range": setting.range,
        "description": setting.description,
    }


def every(version: int, settings: Iterable[settings_pb2.Setting]) -> dict[str, Any]:
    """Return all settings and their version, 0 where nothing was ever set."""
    return {"version": version, "settings": [setting(one) for one in settings]}


def version(version: settings_pb2.SettingVersion) -> dict[str, Any]:
    """Return a version; `rolled_back_to` is None where it brought none back."""
    back = version.rolled_back_to if version.HasField("rolled_back_to") else None
    return {
        "version": version.version,
        "time": views.time(version, "time"),
        "rolled_back_to": back,
        "changes": [
            {"name": change.name, "old_value": change.old_value, "new_value": change.new_value}
            for change in version.changes
        ],
    }


def show_change(
    version: int, settings: Iterable[settings_pb2.Setting], names: Iterable[str], *, as_json: bool
) -> None:
    """Print what holds after a change: all settings as JSON, or those in `names` for people."""
    if as_json:
        print(json.dumps(every(version, settings), indent=2))
        return
    wanted = set(names)
    for one in settings:
        if one.name in wanted:
            print(f"{one.name}={one.value}")
    print(f"version {version}")
