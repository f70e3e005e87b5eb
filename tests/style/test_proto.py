"""The wire contract keeps buf's STANDARD style rules, so that any language's tools read it well.

Rules are named as buf names them. Structure is read from the descriptors in the committed stubs (``make lint``
checks that these are the files' own); what descriptors do not show is read from the text.
"""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FileDescriptor

ROOT = Path(__file__).resolve().parents[2] / "proto"
FILES = sorted(ROOT.rglob("*.proto"))

PASCAL = re.compile(r"[A-Z][A-Za-z0-9]*")
SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
UPPER_SNAKE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")


def _descriptor(path: Path) -> FileDescriptor:
    module = importlib.import_module(str(path.relative_to(ROOT).with_suffix("")).replace("/", ".") + "_pb2")
    descriptor: FileDescriptor = module.DESCRIPTOR
    return descriptor


def _messages(parent: FileDescriptor | Descriptor) -> Iterator[Descriptor]:
    nested = parent.message_types_by_name if isinstance(parent, FileDescriptor) else parent.nested_types_by_name
    for message in nested.values():
        yield message
        yield from _messages(message)


def _enums(file: FileDescriptor) -> Iterator[EnumDescriptor]:
    yield from file.enum_types_by_name.values()
    for message in _messages(file):
        yield from message.enum_types


@pytest.fixture(params=FILES, ids=lambda path: path.name)
def path(request: pytest.FixtureRequest) -> Path:
    file: Path = request.param
    return file


def test_there_are_files() -> None:
    assert FILES


def test_file_lower_snake_case_and_package_directory_match(path: Path) -> None:
    assert SNAKE.fullmatch(path.stem)
    assert _descriptor(path).package == ".".join(path.parent.relative_to(ROOT).parts)


def test_package_version_suffix(path: Path) -> None:
    assert re.fullmatch(r"[a-z]+(\.[a-z]+)*\.v[1-9][0-9]*", _descriptor(path).package)


def test_syntax_specified_and_imports_used(path: Path) -> None:
    text = path.read_text("utf-8")
    assert re.search(r'^syntax = "proto3";$', text, re.MULTILINE)
    assert not re.search(r"^import (public|weak) ", text, re.MULTILINE)
    body = re.sub(r"//.*|^import.*$", "", text, flags=re.MULTILINE)
    for dependency in _descriptor(path).dependencies:
        names = [*dependency.message_types_by_name, *dependency.enum_types_by_name]
        assert any(re.search(rf"\b{name}\b", body) for name in names), f"{dependency.name} is not used"


def test_message_and_field_names(path: Path) -> None:
    for message in _messages(_descriptor(path)):
        assert PASCAL.fullmatch(message.name), message.full_name
        for field in message.fields:
            assert SNAKE.fullmatch(field.name), field.full_name
        for oneof in message.oneofs:
            optional = [f"_{field.name}" for field in oneof.fields]  # protoc's own oneof around an optional field
            assert SNAKE.fullmatch(oneof.name) or optional == [oneof.name], oneof.full_name


def test_no_map_and_no_float(path: Path) -> None:
    """Our own rule: signed and hashed bytes have one encoding, and nothing replicated is a float."""
    for message in _messages(_descriptor(path)):
        assert not message.GetOptions().map_entry, message.full_name
        for field in message.fields:
            assert field.type not in (field.TYPE_FLOAT, field.TYPE_DOUBLE), field.full_name


def test_enum_names_prefixes_and_zero_value(path: Path) -> None:
    for enum in _enums(_descriptor(path)):
        assert PASCAL.fullmatch(enum.name), enum.full_name
        prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper() + "_"
        assert enum.values_by_number[0].name == prefix + "UNSPECIFIED", enum.full_name
        assert not enum.GetOptions().allow_alias, enum.full_name
        for value in enum.values:
            assert UPPER_SNAKE.fullmatch(value.name), value.name
            assert value.name.startswith(prefix), value.name


def test_service_and_rpc_names(path: Path) -> None:
    for service in _descriptor(path).services_by_name.values():
        assert PASCAL.fullmatch(service.name)
        assert service.name.endswith("Service"), service.name
        for method in service.methods:
            assert PASCAL.fullmatch(method.name), method.full_name
            allowed = (f"{method.name}%s", f"{service.name.removesuffix('Service')}{method.name}%s")
            assert method.input_type.name in [name % "Request" for name in allowed], method.full_name
            assert method.output_type.name in [name % "Response" for name in allowed], method.full_name


def test_rpc_requests_and_responses_are_unique() -> None:
    uses = Counter(
        message.full_name
        for path in FILES
        for service in _descriptor(path).services_by_name.values()
        for method in service.methods
        for message in (method.input_type, method.output_type)
    )
    assert [name for name, count in uses.items() if count > 1] == []
