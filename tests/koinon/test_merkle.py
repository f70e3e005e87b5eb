"""Merkle trees against the RFC's own vectors and a twin that follows its recursive definitions word by word."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinon import merkle

# The vectors of the Certificate Transparency reference implementation (its merkle tree tests).
CT_LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
CT_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
CT_INCLUSION = {  # (index, size): path
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
CT_CONSISTENCY = {  # (first, second): path
    (1, 1): [],
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}

LEAVES = st.integers(1, 40).map(lambda size: [b"leaf %d" % index for index in range(size)])


# --- the twin: RFC 6962, section 2.1, as it is written -------------------------------------------------


def k_of(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def mth(leaves: list[bytes]) -> bytes:
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = k_of(len(leaves))
    return hashlib.sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    k = k_of(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def proof(m: int, leaves: list[bytes]) -> list[bytes]:
    def subproof(m: int, leaves: list[bytes], whole: bool) -> list[bytes]:
        if m == len(leaves):
            return [] if whole else [mth(leaves)]
        k = k_of(len(leaves))
        if m <= k:
            return [*subproof(m, leaves[:k], whole), mth(leaves[k:])]
        return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]

    return subproof(m, leaves, True)


# --- known vectors -------------------------------------------------------------------------------------


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert merkle.root([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def ct_subtrees(size: int) -> merkle.Subtree:
    return merkle.subtrees([merkle.leaf_hash(leaf) for leaf in CT_LEAVES[:size]])


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_those_of_certificate_transparency(size: int) -> None:
    assert merkle.root(CT_LEAVES[:size]).hex() == CT_ROOTS[size - 1]


@pytest.mark.parametrize(("place", "expected"), CT_INCLUSION.items())
def test_inclusion_proofs_are_those_of_certificate_transparency(place: tuple[int, int], expected: list[str]) -> None:
    index, size = place
    assert [item.hex() for item in merkle.inclusion_proof(index, size, ct_subtrees(size))] == expected


@pytest.mark.parametrize(("sizes", "expected"), CT_CONSISTENCY.items())
def test_consistency_proofs_are_those_of_certificate_transparency(sizes: tuple[int, int], expected: list[str]) -> None:
    first, second = sizes
    assert [item.hex() for item in merkle.consistency_proof(first, second, ct_subtrees(second))] == expected


# --- against the twin ----------------------------------------------------------------------------------


@given(leaves=LEAVES, data=st.data())
def test_inclusion_agrees_with_the_definition(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    hashes = [merkle.leaf_hash(leaf) for leaf in leaves]
    assert merkle.root(leaves) == mth(leaves)
    found = merkle.inclusion_proof(index, len(leaves), merkle.subtrees(hashes))
    assert found == path(index, leaves)
    assert merkle.verify_inclusion(hashes[index], index, len(leaves), found, mth(leaves))


@given(leaves=LEAVES, data=st.data())
def test_consistency_agrees_with_the_definition(leaves: list[bytes], data: st.DataObject) -> None:
    first = data.draw(st.integers(1, len(leaves)))
    subtree = merkle.subtrees([merkle.leaf_hash(leaf) for leaf in leaves])
    found = merkle.consistency_proof(first, len(leaves), subtree)
    assert found == proof(first, leaves)
    assert merkle.verify_consistency(first, len(leaves), mth(leaves[:first]), mth(leaves), found)


# --- what must not verify ------------------------------------------------------------------------------


def altered(proof_: list[bytes], data: st.DataObject) -> list[bytes]:
    """Another proof than this one."""
    result = list(proof_)
    kind = data.draw(st.sampled_from(["longer", "shorter", "flip", "swap", "truncate", "start"]))
    at = data.draw(st.integers(0, max(0, len(result) - 1)))
    if kind == "longer" or not result:
        result.append(bytes(32))
    elif kind == "start":
        result.insert(0, result[0])
    elif kind == "shorter":
        del result[at]
    elif kind == "flip":
        result[at] = bytes([result[at][0] ^ 1]) + result[at][1:]
    elif kind == "truncate":
        result[at] = result[at][:-1]
    else:
        result[at], result[0] = result[0], result[at]
        if result == proof_:
            result.append(result[-1])
    return result


@given(leaves=LEAVES, data=st.data())
def test_no_other_path_proves_inclusion(leaves: list[bytes], data: st.DataObject) -> None:
    size = len(leaves)
    index = data.draw(st.integers(0, size - 1))
    leaf, root = merkle.leaf_hash(leaves[index]), mth(leaves)
    good = path(index, leaves)
    assert not merkle.verify_inclusion(leaf, index, size, altered(good, data), root)
    assert not merkle.verify_inclusion(merkle.leaf_hash(b"another"), index, size, good, root)
    assert not merkle.verify_inclusion(leaf, index, size, good, bytes(32))
    other = data.draw(st.integers(-1, size + 1).filter(lambda value: value != index))
    assert not merkle.verify_inclusion(leaf, other, size, good, root)


@given(leaves=LEAVES, data=st.data())
def test_no_other_path_proves_consistency(leaves: list[bytes], data: st.DataObject) -> None:
    second = len(leaves)
    first = data.draw(st.integers(1, second))
    old, new = mth(leaves[:first]), mth(leaves)
    good = proof(first, leaves)
    assert not merkle.verify_consistency(first, second, old, new, altered(good, data))
    assert not merkle.verify_consistency(first, second, bytes(32), new, good)
    assert not merkle.verify_consistency(first, second, old, bytes(32), good)
    assert not merkle.verify_consistency(second + 1, second, old, new, good)
    for other in range(1, second + 1):
        if other != first and mth(leaves[:other]) != old:
            assert not merkle.verify_consistency(other, second, old, new, good)


@given(leaves=LEAVES)
def test_every_log_begins_with_the_empty_one(leaves: list[bytes]) -> None:
    size, root = len(leaves), mth(leaves)
    assert merkle.verify_consistency(0, size, merkle.EMPTY_ROOT, root, [])
    assert not merkle.verify_consistency(0, size, root, root, [])
    assert not merkle.verify_consistency(0, size, merkle.EMPTY_ROOT, root, [root])
