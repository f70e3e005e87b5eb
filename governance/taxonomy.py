"""How datasets are classified: the default taxonomy, and what makes one well-formed.

The default's top are the data themes of the EU vocabulary that DCAT-AP prescribes
(http://publications.europa.eu/resource/authority/data-theme); below health it names the branches of diseases of the
Medical Subject Headings, by their tree numbers (https://meshb.nlm.nih.gov/treeView).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from itertools import pairwise

from koinon.errors import InvalidInput
from koinon.limits import MAX_TAXONOMY_THEMES, MAX_THEME_CODE, MAX_TITLE, MAX_URI
from koinon.names import UNPRINTABLE
from koinon.v1.catalog_pb2 import Taxonomy, Theme

CODE = re.compile(rf"[A-Z][A-Z0-9.-]{{0,{MAX_THEME_CODE - 1}}}")
_URI = re.compile(rf"https?://[!-~]{{1,{MAX_URI - 8}}}")
_EU = "http://publications.europa.eu/resource/authority/data-theme/"
_MESH = "http://id.nlm.nih.gov/mesh/"

_TOP = {
    "AGRI": "Agriculture, fisheries, forestry and food",
    "ECON": "Economy and finance",
    "EDUC": "Education, culture and sport",
    "ENER": "Energy",
    "ENVI": "Environment",
    "GOVE": "Government and public sector",
    "HEAL": "Health",
    "INTR": "International issues",
    "JUST": "Justice, legal system and public safety",
    "REGI": "Regions and cities",
    "SOCI": "Population and society",
    "TECH": "Science and technology",
    "TRAN": "Transport",
}
_DISEASES = {
    "C01": "Infections",
    "C04": "Neoplasms",
    "C05": "Musculoskeletal diseases",
    "C06": "Digestive system diseases",
    "C07": "Stomatognathic diseases",
    "C08": "Respiratory tract diseases",
    "C09": "Otorhinolaryngologic diseases",
    "C10": "Nervous system diseases",
    "C11": "Eye diseases",
    "C12": "Urogenital diseases",
    "C14": "Cardiovascular diseases",
    "C15": "Hemic and lymphatic diseases",
    "C16": "Congenital, hereditary and neonatal diseases",
    "C17": "Skin and connective tissue diseases",
    "C18": "Nutritional and metabolic diseases",
    "C19": "Endocrine system diseases",
    "C20": "Immune system diseases",
}


def _default() -> Taxonomy:
    themes = [Theme(code=code, label=label, uri=_EU + code) for code, label in _TOP.items()]
    themes += [
        Theme(code=f"HEAL.{number}", label=label, parent="HEAL", uri=_MESH + number)
        for number, label in _DISEASES.items()
    ]
    return Taxonomy(title="EU data themes, with diseases of MeSH", themes=sorted(themes, key=lambda theme: theme.code))


DEFAULT = _default()
"""What holds until the members decide on another."""


def check(taxonomy: Taxonomy) -> None:
    """Is a taxonomy from outside well-formed? Raises InvalidInput with rule ``taxonomy``."""
    if not taxonomy.title or len(taxonomy.title) > MAX_TITLE or UNPRINTABLE.search(taxonomy.title):
        raise _wrong("a taxonomy needs a title", f"give 1 to {MAX_TITLE} printable characters")
    if not 1 <= len(taxonomy.themes) <= MAX_TAXONOMY_THEMES:
        raise _wrong(f"the taxonomy has {len(taxonomy.themes)} themes", f"1 to {MAX_TAXONOMY_THEMES} are allowed")
    for theme in taxonomy.themes:
        _check_theme(theme)
    if any(not a.code < b.code for a, b in pairwise(taxonomy.themes)):
        raise _wrong("themes are not in ascending order, or one is there twice", "sort them by code")
    parents = {theme.code: theme.parent for theme in taxonomy.themes}
    for code, parent in parents.items():
        if parent and parent not in parents:
            raise _wrong(f"theme {code} is below {parent}, which is not there", "add it, or name another")
    rooted: set[str] = set()
    for theme in taxonomy.themes:
        path, code = [], theme.code
        while code and code not in rooted:
            if code in path:
                raise _wrong(f"theme {code} is below itself", "themes form trees")
            path.append(code)
            code = parents[code]
        rooted.update(path)


def with_wider(taxonomy: Taxonomy, codes: Collection[str]) -> list[str]:
    """These themes and every wider one, ascending. Codes that the taxonomy does not know stay alone."""
    parents = {theme.code: theme.parent for theme in taxonomy.themes}
    return sorted({wider for code in codes for wider in _upwards(parents, code)})


def with_narrower(taxonomy: Taxonomy, code: str) -> list[str]:
    """This theme and every narrower one, ascending; of an unknown one itself."""
    parents = {theme.code: theme.parent for theme in taxonomy.themes}
    return sorted({code, *(below for below in parents if code in _upwards(parents, below))})


def _upwards(parents: Mapping[str, str], code: str) -> list[str]:
    path = []
    while code:
        path.append(code)
        code = parents.get(code, "")
    return path


def _check_theme(theme: Theme) -> None:
    if not CODE.fullmatch(theme.code):
        raise _wrong(f"{theme.code!a} is no code", f"use 1 to {MAX_THEME_CODE} of A-Z, 0-9, '.', '-'; a letter first")
    if not theme.label or len(theme.label) > MAX_TITLE or UNPRINTABLE.search(theme.label):
        raise _wrong(f"theme {theme.code} has no proper label", f"give 1 to {MAX_TITLE} printable characters")
    if theme.uri and not _URI.fullmatch(theme.uri):
        raise _wrong(
            f"the uri of theme {theme.code} is none", f"give http(s)://, at most {MAX_URI} characters, or none"
        )


def _wrong(message: str, hint: str) -> InvalidInput:
    return InvalidInput(message, rule="taxonomy", hint=hint)
