"""The stored log against a list: same roots and proofs, at every size it ever had."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinon import merkle
from koinon.errors import Corrupt
from node.ledger.audit_log import AuditLog
from node.store.memory import MemoryStore

BLOCKS = st.lists(st.lists(st.binary(max_size=5), max_size=12), max_size=8)


def filled(size: int) -> tuple[MemoryStore, list[bytes]]:
    store = MemoryStore()
    records = [b"record %d" % index for index in range(size)]
    store.write(AuditLog(store.get).append(records), sync=True)
    return store, records


@given(blocks=BLOCKS, restart=st.booleans())
def test_roots_and_records_agree_with_a_list(blocks: list[list[bytes]], restart: bool) -> None:
    store = MemoryStore()
    log = AuditLog(store.get)
    records: list[bytes] = []
    for block in blocks:
        writes = log.append(block)
        records += block
        assert log.size == len(records)
        assert log.root() == merkle.root(records)
        store.write(writes, sync=True)
        if restart:
            log = AuditLog(store.get)
    assert AuditLog(store.get).root() == merkle.root(records)
    assert [log.record(index) for index in range(log.size)] == records
    assert log.record(log.size) is None
    assert log.record(-1) is None
    assert [log.root_at(size) for size in range(log.size + 1)] == [
        merkle.root(records[:size]) for size in range(log.size + 1)
    ]


def test_every_proof_of_every_size_verifies() -> None:
    store, records = filled(37)
    log = AuditLog(store.get)
    roots = [merkle.root(records[:size]) for size in range(38)]
    for size in range(1, 38):
        for index in range(size):
            proof = log.inclusion_proof(index, size)
            assert merkle.verify_inclusion(merkle.leaf_hash(records[index]), index, size, proof, roots[size])
        for first in range(1, size + 1):
            proof = log.consistency_proof(first, size)
            assert merkle.verify_consistency(first, size, roots[first], roots[size], proof)


def test_an_entry_of_the_log_takes_two_writes_on_average() -> None:
    """A record and, on average, one inner node: the log grows by a constant per record."""
    store = MemoryStore()
    writes = AuditLog(store.get).append([b"x"] * 4096)
    assert len(writes) == 4096 + 4095 + 1
    assert AuditLog(store.get).append([]) == []


def test_a_proof_reads_logarithmically_many_entries() -> None:
    store, _ = filled(1000)
    reads = 0

    def counting(key: bytes) -> bytes | None:
        nonlocal reads
        reads += 1
        return store.get(key)

    log = AuditLog(counting)
    assert reads <= 1 + 10
    reads = 0
    log.inclusion_proof(617, 999)
    assert reads <= 2 * 10
    reads = 0
    log.consistency_proof(617, 999)
    assert reads <= 2 * 10


def test_a_lost_entry_is_told() -> None:
    store, _ = filled(8)
    lost = [key for key, _ in store.scan(b"l/n")]
    for key in lost:
        store.write([(key, None)], sync=True)
    with pytest.raises(Corrupt):
        AuditLog(store.get)
