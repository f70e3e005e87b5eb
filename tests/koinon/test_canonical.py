"""The bytes that are signed and hashed are frozen: to change one is a deliberate act."""

from __future__ import annotations

import hashlib
import inspect
import runpy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinon import canonical

VECTORS = Path(__file__).parent.parent / "vectors"
GENERATOR: dict[str, Any] = runpy.run_path(str(VECTORS / "make_canonical.py"))
FROZEN = "6d47a0da4aa53551f7bdc75a908343f051ee54b16000db09fe8b2531141b2462"


def test_the_vectors_are_frozen() -> None:
    assert hashlib.sha256((VECTORS / "canonical.json").read_bytes()).hexdigest() == FROZEN


def test_the_functions_still_make_the_vectors() -> None:
    assert GENERATOR["text"]() == (VECTORS / "canonical.json").read_text("ascii")


def test_every_function_has_a_vector() -> None:
    functions = {
        name
        for name, item in inspect.getmembers(canonical, inspect.isfunction)
        if not name.startswith("_") and item.__module__ == canonical.__name__
    }
    assert {name for name, _ in GENERATOR["CALLS"]} == functions


def test_no_two_purposes_share_a_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is signed or hashed for one purpose can never be read as something for another."""
    hashed: list[bytes] = []

    class Recorder:
        def __init__(self, data: bytes) -> None:
            hashed.append(data)

        def digest(self) -> bytes:
            return bytes(32)

    monkeypatch.setattr(hashlib, "sha256", Recorder)
    owners: dict[bytes, str] = {}
    for name, arguments in GENERATOR["CALLS"]:
        hashed.clear()
        result = getattr(canonical, name)(*arguments)
        data = hashed[0] if hashed else result
        assert data.startswith(b"koinon/v1/")
        if name != "chain_id":  # it is made from the genesis hash
            assert owners.setdefault(data[: data.index(b"\0")], name) == name


@pytest.mark.parametrize("vote_type", [1, 2])
def test_a_vote_is_written_as_the_page_says(vote_type: int) -> None:
    """The same bytes, put together by hand."""
    chain = b"ercp-00"
    expected = b"koinon/v1/vote\x00" + bytes([0, 0, 0, 7]) + chain + bytes([vote_type])
    expected += bytes([0, 0, 0, 0, 0, 0, 1, 0]) + bytes([0, 0, 0, 2]) + bytes([0, 0, 0, 32]) + bytes(32)
    expected += bytes([0, 0, 0, 0, 0, 0, 0, 9])
    assert canonical.vote_bytes("ercp-00", vote_type, 256, 2, bytes(32), 9) == expected


FIELD = st.binary(max_size=8)


@given(first=st.tuples(FIELD, FIELD), second=st.tuples(FIELD, FIELD))
def test_fields_cannot_be_shifted_into_each_other(first: tuple[bytes, bytes], second: tuple[bytes, bytes]) -> None:
    assert (canonical.state_entry(*first) == canonical.state_entry(*second)) == (first == second)
    assert (canonical.transaction_id(*first) == canonical.transaction_id(*second)) == (first == second)


SIGNERS = st.lists(st.tuples(st.text(max_size=3), st.integers(0, 3), FIELD), max_size=3)


@given(first=SIGNERS, second=SIGNERS)
def test_lists_cannot_be_shifted_into_each_other(
    first: list[tuple[str, int, bytes]], second: list[tuple[str, int, bytes]]
) -> None:
    same = canonical.commit_hash(1, 0, b"", first) == canonical.commit_hash(1, 0, b"", second)
    assert same == (first == second)
