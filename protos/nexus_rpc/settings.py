"""Settings: a frozen dataclass per service, filled from a TOML file.

The file may leave out anything that has a default. What it does name must exist and have the
right type, so that a slip of the pen stops the service at start and not later.
"""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

_T = TypeVar("_T")


class SettingsError(Exception):
    """The settings cannot be used. The message names the file, the key and the way out."""


def load(cls: type[_T], path: Path) -> _T:
    """Return `cls` filled from the TOML file at `path`, or its defaults if there is no file.

    Understands str, int, float, bool, Path, `tuple[str, ...]`, nested dataclasses (whose keys keep
    the defaults that they have in `cls`) and `X | None`. Raises SettingsError.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        table = {}
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: {error}") from error
    return _build(cls, table, str(path))


def check_loopback(key: str, listen: str) -> None:
    """Raise ValueError unless `listen` is empty, or a loopback address and a port."""
    host, _, port = listen.rpartition(":")
    if listen and (host not in ("127.0.0.1", "[::1]") or not port.isdigit()):
        raise ValueError(
            f"{key} is {listen!r}: expected 127.0.0.1:PORT or [::1]:PORT;"
            " reach it from elsewhere by a tunnel"
        )


def _build(cls: type[_T], table: dict[str, Any], where: str, base: object = None) -> _T:
    """Return `cls` from `table`; what it leaves out is as in `base`, or the default."""
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]  # T is a dataclass by contract
    unknown = sorted(table.keys() - fields.keys())
    if unknown:
        raise SettingsError(
            f"{where}: unknown key {unknown[0]!r}; known: {', '.join(sorted(fields))}"
        )
    values = {} if base is None else {name: getattr(base, name) for name in fields}
    try:
        for key, value in table.items():
            values[key] = _convert(hints[key], value, f"{where}: {key}", _default(fields[key]))
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{where}: {error}") from error


def _default(field: dataclasses.Field[Any]) -> object:
    """Return the default of a field that is a dataclass itself, else None."""
    factory = field.default_factory
    default = field.default if factory is dataclasses.MISSING else factory()
    return default if dataclasses.is_dataclass(default) else None


def _convert(hint: Any, value: Any, where: str, default: object = None) -> Any:  # noqa: ANN401  # a type hint is any object
    if isinstance(hint, types.UnionType):
        hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return _build(typing.cast("type[Any]", hint), value, where, default)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and type(value) is int:
        return float(value)
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        item = typing.get_args(hint)[0]
        return tuple(_convert(item, element, where) for element in value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise SettingsError(f"{where} is {value!r}: expected {getattr(hint, '__name__', hint)}")
