"""The *indo_rct* trial as four hospitals hold it: one CSV file per centre, and one descriptor for all."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

PATIENTS = {"um": 164, "iu": 413, "uk": 22, "case": 3}
"""Rows of each institution's file."""


def table_path(institution: str) -> Path:
    """The CSV file of one of the four institutions."""
    return Path(str(files(__name__) / f"{institution}.csv"))


def descriptor_path() -> Path:
    """What the publishers say about it: title, units, descriptions and the codelists they confirm."""
    return Path(str(files(__name__) / "descriptor.toml"))
