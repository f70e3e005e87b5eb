"""A case file as a page to read and to print: one HTML file that loads and runs nothing and trusts no text in it."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from koinon.case import VerifiedCase
from koinon.display import printable, when
from koinon.v1.audit_pb2 import AuditRecord

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # should anything slip through, it gets nowhere
_STYLE = """
body { font: 11pt/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #111 }
h1 { font-size: 1.4rem } dt { font-weight: 600 } dd { margin: 0 0 .4rem 0; overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100%; font-size: 9.5pt }
th, td { text-align: left; vertical-align: top; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid #ccc }
td { overflow-wrap: anywhere } td:first-child { text-align: right }
thead { display: table-header-group } tr { break-inside: avoid } @media print { body { margin: 0; max-width: none } }
"""
_COMPLETE = (
    "No change of state of what the case is about is missing before the last one shown. That none came later, and that "
    "nothing else was left out, no file can prove; any member's node can refute it."
)
_COLUMNS = ("No.", "Time (UTC)", "What", "By", "About", "Change", "Concerning", "Detail")


def render(case: VerifiedCase, *, file_name: str) -> str:
    """The page of a verified case; ``file_name`` is where its receipts are."""
    proof = case.proof
    title = f"Case of {case.subject}"
    facts = (
        ("Chain", proof.chain_id),
        ("About", ", ".join(case.scope)),
        ("Records", f"{len(case.records)} of the {case.tree_size} that the log had"),
        ("Proved by", f"block {proof.height}, {when(proof.time_ms)}, {proof.block_hash.hex()}"),
        ("Signed by", ", ".join(proof.signers)),
        ("To verify", f"koinon audit verify {file_name} --genesis genesis.json"),
        ("Complete?", _COMPLETE),
    )
    rows = "\n".join(f"<tr>{''.join(f'<td>{_safe(cell)}</td>' for cell in _cells(item))}</tr>" for item in case.records)
    header = "".join(f"<th>{name}</th>" for name in _COLUMNS)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{_safe(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{_safe(title)}</h1>\n"
        f"<dl>\n{_list(facts)}\n</dl>\n<table>\n<thead><tr>{header}</tr></thead>\n"
        f"<tbody>\n{rows}\n</tbody>\n</table>\n</body>\n</html>\n"
    )


def _cells(record: AuditRecord) -> tuple[str, ...]:
    before = "" if record.from_state == record.to_state else record.from_state
    return (
        str(record.index),
        when(record.time_ms).removesuffix(" UTC"),
        record.kind,
        record.actor,
        record.subject,
        " → ".join(filter(None, (before, record.to_state))),
        ", ".join(record.related),
        record.detail,
    )


def _list(facts: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"<dt>{_safe(name)}</dt><dd>{_safe(value)}</dd>" for name, value in facts)


def _safe(text: str) -> str:
    """No text acts: not on HTML, nor on the reading direction."""
    return escape(printable(text), quote=True)
