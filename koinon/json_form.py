"""Messages as JSON that a person can read, and back, strictly.

Field names as in the .proto files, integers as numbers, bytes in base64, enum values in short lower case
(``ROLE_OPERATOR`` is ``"operator"``), fields left out that hold their default. Reading refuses what
protobuf's own JSON reader would let pass: unknown or repeated keys, numbers in quotes, sloppy base64.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from typing import Any, TypeVar

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from koinon.errors import InvalidFile

Json = Any
"""What json.loads returns: of any shape, to be checked."""

AnyMessage = TypeVar("AnyMessage", bound=Message)

_INTEGERS = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
}


def render(message: Message, format_name: str) -> str:
    """The JSON text of a message, with ``format_name`` as its first entry."""
    return json.dumps({"format": format_name, **_to_json(message)}, indent=2, ensure_ascii=False) + "\n"


def parse(text: str, message_type: type[AnyMessage], format_name: str, what: str) -> AnyMessage:
    """The message of a JSON text from anywhere; ``what`` names it for a person. Raises InvalidFile."""
    data = load(text, what)
    if not isinstance(data, dict) or data.pop("format", None) != format_name:
        raise InvalidFile(f'the {what} does not say "format": "{format_name}"', hint=_hint(what))
    message = message_type()
    try:
        _from_json(data, message, "")
    except _Problem as problem:
        raise InvalidFile(f"the {what} does not fit: {problem}", hint=_hint(what)) from None
    return message


def read(table: dict[str, Json], message_type: type[AnyMessage], what: str, hint: str) -> AnyMessage:
    """The message of an object that was written by hand, in JSON or TOML, as strictly. Raises InvalidFile."""
    message = message_type()
    try:
        _from_json(table, message, "")
    except _Problem as problem:
        raise InvalidFile(f"the {what} does not fit: {problem}", hint=hint) from None
    return message


def load(text: str, what: str) -> Json:
    """What a JSON text from anywhere says, if it says everything once. Raises InvalidFile."""
    try:
        return json.loads(text, object_pairs_hook=_refuse_repeated, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidFile(f"the {what} is not JSON: {error}", hint=_hint(what)) from error


class _Problem(Exception):
    """What does not fit, and where; never leaves this module."""


def _hint(what: str) -> str:
    return f"use a {what} as Koinon wrote it; do not edit it by hand"


def _refuse_repeated(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return table


def _refuse_constant(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")


def _to_json(message: Message) -> dict[str, Json]:
    table: dict[str, Json] = {}
    for field, value in message.ListFields():
        if field.is_repeated:
            table[field.name] = [_value_to_json(field, item) for item in value]
        else:
            table[field.name] = _value_to_json(field, value)
    return table


def _value_to_json(field: FieldDescriptor, value: Any) -> Json:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return _to_json(value)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return base64.b64encode(value).decode("ascii")
    if field.enum_type is not None:
        return _short_names(field.enum_type)[value]
    return value


def _from_json(data: dict[str, Json], message: Message, where: str) -> None:
    fields: dict[str, Any] = {field.name: field for field in message.DESCRIPTOR.fields}
    for name, value in data.items():
        field = fields.get(name)
        here = f"{where}.{name}" if where else name
        if field is None:
            raise _Problem(f"{here!r} is not known")
        if not field.is_repeated:
            _set(message, field, value, here)
        elif isinstance(value, list):
            _extend(message, field, value, here)
        else:
            raise _Problem(f"{here} must be a list")


def _set(message: Message, field: FieldDescriptor, value: Json, where: str) -> None:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        part = getattr(message, field.name)
        part.SetInParent()
        _from_json(_object(value, where), part, where)
    else:
        setattr(message, field.name, _scalar(field, value, where))


def _extend(message: Message, field: FieldDescriptor, values: list[Json], where: str) -> None:
    container = getattr(message, field.name)
    for index, value in enumerate(values):
        here = f"{where}[{index}]"
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            _from_json(_object(value, here), container.add(), here)
        else:
            container.append(_scalar(field, value, here))


def _object(value: Json, where: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise _Problem(f"{where} must be an object")
    return value


def _scalar(field: FieldDescriptor, value: Json, where: str) -> Any:
    if field.type in _INTEGERS:
        low, high = _INTEGERS[field.type]
        if type(value) is not int or not low <= value <= high:  # a bool is an int to isinstance
            raise _Problem(f"{where} must be a whole number from {low} to {high}")
        return value
    if field.type == FieldDescriptor.TYPE_BOOL:
        if type(value) is not bool:
            raise _Problem(f"{where} must be true or false")
        return value
    if not isinstance(value, str):
        raise _Problem(f"{where} must be a text")
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _base64(value, where)
    if field.enum_type is not None:
        return _enum(field.enum_type, value, where)
    if not _is_unicode(value):
        raise _Problem(f"{where} holds half a surrogate pair")
    return value


def _base64(text: str, where: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _Problem(f"{where} is not base64") from None
    if base64.b64encode(data).decode("ascii") != text:
        raise _Problem(f"{where} is not canonical base64")
    return data


def _enum(enum: EnumDescriptor, text: str, where: str) -> int:
    for number, name in _short_names(enum).items():
        if name == text:
            return number
    raise _Problem(f"{where} must be one of {', '.join(_short_names(enum).values())}")


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _short_names(enum: EnumDescriptor) -> dict[int, str]:
    """The enum's values without their common prefix, in lower case; the unspecified value has no name."""
    named = [value for value in enum.values if value.number]
    prefix = _common_prefix(value.name for value in enum.values)
    return {value.number: value.name[len(prefix) :].lower() for value in named}


def _common_prefix(names: Iterable[str]) -> str:
    first, *others = names
    while not all(name.startswith(first) for name in others):
        first = first[: first.rstrip("_").rfind("_") + 1]
    return first
