"""Field masks: which fields of a message an answer has.

A path names a field, or one inside of a message that is no element of a list or map, "spec.image"
(google.protobuf.FieldMask).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexus_rpc.errors import invalid_field

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

_MOST = 100


class Mask:
    """The fields that stay in a message. Use `check_mask`."""

    def __init__(self) -> None:
        self._dropped: list[str] = []
        self._inner: dict[str, Mask] = {}

    @classmethod
    def of(cls, descriptor: Descriptor, paths: Iterable[Sequence[str]]) -> Mask:
        """Return the mask of paths that `check_mask` has checked, each as its names."""
        mask = cls()
        rest: dict[str, list[Sequence[str]]] = {}
        for name, *others in paths:
            rest.setdefault(name, []).append(others)
        for field in descriptor.fields:
            inner = rest.get(field.name)
            if inner is None:
                mask._dropped.append(field.name)
            elif all(inner) and field.message_type:
                mask._inner[field.name] = cls.of(field.message_type, inner)
        return mask

    def names(self, field: str) -> bool:
        """Whether the field, or something inside of it, stays."""
        return field not in self._dropped

    def apply(self, message: Message) -> None:
        """Clear all other fields of `message`."""
        for name in self._dropped:
            message.ClearField(name)
        for name, inner in self._inner.items():
            if message.HasField(name):
                inner.apply(getattr(message, name))


def check_mask(field: str, paths: Sequence[str], descriptor: Descriptor) -> Mask | None:
    """Return the mask that `paths`, the value of `field`, make for a message; None without any.

    Raises InvalidArgument.
    """
    if len(paths) > _MOST:
        raise invalid_field(field, f"{len(paths)} paths", f"at most {_MOST}")
    for path in paths:
        if not _leads(path.split("."), descriptor):
            raise invalid_field(
                field,
                path,
                f"a field of {descriptor.name}, or one inside of it that is no list or map",
            )
    return Mask.of(descriptor, [path.split(".") for path in paths]) if paths else None


def _leads(names: Sequence[str], descriptor: Descriptor) -> bool:
    """Whether there is a field to which the names lead."""
    name, *rest = names
    found = descriptor.fields_by_name.get(name)
    if found is None or not rest:
        return found is not None
    inner = found.message_type
    return inner is not None and not found.is_repeated and _leads(rest, inner)
