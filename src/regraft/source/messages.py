"""Protocol buffers without generated code: messages are declared as text, here and in the readers.

A declaration is one line per message: its name, then `number name type` for each field that is read, with `*` after
the type where it is repeated. Fields that are not declared are skipped. Enumerations are `number name` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regraft.errors import MissingExtra, SourceError

Declared = Mapping[str, str]

_TYPES = {
    "double": 1, "float": 2, "int64": 3, "uint64": 4, "int32": 5, "fixed32": 7, "bool": 8, "string": 9, "bytes": 12,
    "uint32": 13,
}  # fmt: skip
_MESSAGE, _ENUM = 11, 14
_OPTIONAL, _REPEATED = 1, 3


def _protobuf() -> Any:
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory, text_format
    except ImportError as error:
        raise MissingExtra("protobuf", "graphs", "read files of Caffe and TensorFlow") from error
    return descriptor_pb2, descriptor_pool, message, message_factory, text_format


def declare(package: str, messages: Declared, enums: Declared) -> dict[str, Any]:
    """Message classes by name.

    Args:
        package: a name of its own for every set of declarations.
        messages: message name to its fields, "1 name string; 2 shape Shape*".
        enums: enumeration name to its values, "0 MAX; 1 AVE".

    Raises:
        MissingExtra: protobuf is not installed.

    Example:
        >>> Point = declare("example", {"Point": "1 x int64; 2 tags string*"}, {})["Point"]
        >>> Point.FromString(bytes([8, 3])).x
        3
    """
    descriptor_pb2, descriptor_pool, _, message_factory, _ = _protobuf()
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto2")
    for name, values in enums.items():
        # Each in a message of its own, as equal values of two enumerations would clash side by side.
        enum = file.message_type.add(name=f"{name}Scope").enum_type.add(name=name)
        for number, value in _fields(values):
            enum.value.add(name=value, number=int(number))
    for name, fields in messages.items():
        _declare_fields(file.message_type.add(name=name), fields, package, enums)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {n: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{n}")) for n in messages}


def _fields(text: str) -> list[list[str]]:
    return [field.split() for field in text.split(";") if field.strip()]


def _declare_fields(message: Any, text: str, package: str, enums: Declared) -> None:
    for number, name, kind in _fields(text):
        label = _REPEATED if kind.endswith("*") else _OPTIONAL
        kind = kind.rstrip("*")
        field = message.field.add(name=name, number=int(number), label=label)
        if kind in _TYPES:
            field.type = _TYPES[kind]
        else:
            path = f"{kind}Scope.{kind}" if kind in enums else kind
            field.type, field.type_name = (_ENUM if kind in enums else _MESSAGE), f".{package}.{path}"


def parsed(message: Any, data: bytes, where: str) -> Any:
    """A message from its binary form.

    Args:
        message: its class, as `declare` gives it.
        data: the bytes.
        where: the file, for messages.

    Raises:
        SourceError: the bytes are no such message.
    """
    _, _, errors, _, _ = _protobuf()
    try:
        found = message.FromString(data)
        _check_text(found)
        return found
    except (errors.DecodeError, RecursionError, UnicodeError) as error:
        raise SourceError(
            f"{where} is damaged or cut short ({error}). Copy or download it again, then pass it"
        ) from error


def _check_text(message: Any) -> None:
    """Strings that are no UTF-8 come out as bytes, without a word."""
    for field, value in message.ListFields():
        if field.type == _TYPES["string"]:
            for text in [value] if isinstance(value, str | bytes) else value:
                if isinstance(text, bytes):
                    raise UnicodeError(f"{field.name} is no text")
        elif field.type == _MESSAGE:
            for part in value if hasattr(value, "__len__") else [value]:
                _check_text(part)


def parsed_text(message: Any, text: str, where: str) -> Any:
    """A message from its text form; fields that are not declared are skipped.

    Raises:
        SourceError: the text is no such message.
    """
    _, _, _, _, text_format = _protobuf()
    try:
        return text_format.Parse(text, message(), allow_unknown_field=True)
    except (text_format.ParseError, RecursionError, ValueError) as error:
        raise SourceError(f"{where} is not a network's description: {error}. Compare it with a whole one") from error
