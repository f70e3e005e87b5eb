"""Merkle trees of RFC 6962, section 2.1: roots, inclusion proofs and consistency proofs.

A tree of n leaves is split at the largest power of two smaller than n. Leaves and nodes are hashed
under different first bytes, so that neither can be passed off as the other. Proofs are made over any
source of subtree roots (a list here, stored nodes in node.ledger.audit_log) and verified from nothing
but hashes, with the algorithms of RFC 9162 (sections 2.1.3.2 and 2.1.4.2).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

EMPTY_ROOT = hashlib.sha256().digest()

Subtree = Callable[[int, int], bytes]
"""MTH(D[start:end]) of RFC 6962: the root over the leaves from ``start`` up to, not including, ``end``."""


def leaf_hash(data: bytes) -> bytes:
    """Hash of one leaf."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node over its two children's hashes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """Root over these leaves' data."""
    return root_of_hashes([hashlib.sha256(b"\x00" + leaf).digest() for leaf in leaves])


def root_of_hashes(hashes: Sequence[bytes]) -> bytes:
    """Root over leaves given by their hashes.

    Pairs neighbours level by level and lifts an odd last one: the same tree as the RFC's recursive split.
    """
    if not hashes:
        return EMPTY_ROOT
    level = list(hashes)
    sha256 = hashlib.sha256  # node_hash, without a call for each of thousands
    while len(level) > 1:
        lefts, rights = level[::2], level[1::2]
        pairs = [sha256(b"\x01" + left + right).digest() for left, right in zip(lefts, rights, strict=False)]
        level = pairs + lefts[len(pairs) :]
    return level[0]


def subtrees(hashes: Sequence[bytes]) -> Subtree:
    """The subtree roots of a list of leaf hashes, for the two functions that make proofs."""
    return lambda start, end: root_of_hashes(hashes[start:end])


def inclusion_proof(index: int, size: int, subtree: Subtree) -> list[bytes]:
    """PATH(index, D[size]) of RFC 6962, section 2.1.1: siblings from the leaf to the root. 0 <= index < size."""
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        split = start + split_point(end - start)
        if index < split:
            path.append(subtree(split, end))
            end = split
        else:
            path.append(subtree(start, split))
            start = split
    return path[::-1]


def consistency_proof(first: int, second: int, subtree: Subtree) -> list[bytes]:
    """PROOF(first, D[second]) of RFC 6962, section 2.1.2. 0 < first <= second."""
    path: list[bytes] = []
    start, end = 0, second
    while first < end:
        split = start + split_point(end - start)
        if first <= split:
            path.append(subtree(split, end))
            end = split
        else:
            path.append(subtree(start, split))
            start = split
    if start > 0:  # else the old tree is a complete subtree, and its root is what the verifier has
        path.append(subtree(start, end))
    return path[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], expected_root: bytes) -> bool:
    """Does ``path`` show the leaf with hash ``leaf`` at ``index`` in the tree with this size and root?

    ``expected_root`` and ``size`` must be trusted; the rest may come from anyone.
    """
    if not 0 <= index < size:
        return False
    position, last, result = index, size - 1, leaf  # RFC 9162: fn, sn, r
    for sibling in path:
        if last == 0 or len(sibling) != len(EMPTY_ROOT):
            return False
        if position & 1 or position == last:
            result = node_hash(sibling, result)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            result = node_hash(result, sibling)
        position >>= 1
        last >>= 1
    return last == 0 and result == expected_root


def verify_consistency(first: int, second: int, first_root: bytes, second_root: bytes, path: Sequence[bytes]) -> bool:
    """Does ``path`` show that the tree of size ``second`` begins with that of size ``first``?

    Sizes and roots must be trusted; ``path`` may come from anyone. Every tree begins with the empty one.
    """
    if not 0 <= first <= second or any(len(item) != len(EMPTY_ROOT) for item in path):
        return False
    if first == 0:
        return not path and first_root == EMPTY_ROOT
    if first == second:
        return not path and first_root == second_root
    nodes = list(path)
    if first & (first - 1) == 0:  # a power of two: the old root starts the path
        nodes.insert(0, first_root)
    if not nodes:
        return False
    position, last = first - 1, second - 1
    while position & 1:
        position >>= 1
        last >>= 1
    old = new = nodes[0]
    for node in nodes[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            old = node_hash(node, old)
            new = node_hash(node, new)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            new = node_hash(new, node)
        position >>= 1
        last >>= 1
    return last == 0 and old == first_root and new == second_root


def split_point(size: int) -> int:
    """The largest power of two smaller than ``size``, which is at least 2."""
    return 1 << (size - 1).bit_length() - 1
