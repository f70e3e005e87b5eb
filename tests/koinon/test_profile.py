"""Profiles and descriptors: what a person writes by hand, refused with a reason when it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinon import descriptor, profile
from koinon.descriptor import Descriptor, Terms
from koinon.errors import InvalidFile, InvalidInput, KoinonError, NotFound
from koinon.v1.catalog_pb2 import Column
from koinon.v1.services_pb2 import CodelistProposal, StageDatasetResponse

PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
GOOD = f"""
institution = "um"
person = "um/analyst"
key_file = "keys/analyst.key"
rpc_address = "127.0.0.1:7101"
node_certificate = '''{PEM}'''
genesis = "/etc/koinon/genesis.json"
"""


def test_relative_paths_start_from_the_profile() -> None:
    parsed = profile.parse(GOOD, Path("/home/ada"))
    assert parsed.key_file == Path("/home/ada/keys/analyst.key")
    assert parsed.genesis == Path("/etc/koinon/genesis.json")
    assert str(parsed.person) == "um/analyst"


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ('institution = "um"', "", "institution is missing"),
        ('institution = "um"', 'institution = "U M"', "not an institution id"),
        ('"um/analyst"', '"analyst"', "not a person id"),
        ('"127.0.0.1:7101"', '"127.0.0.1"', "not an address"),
        ('"127.0.0.1:7101"', '"127.0.0.1:70000"', "not an address"),
        ('"127.0.0.1:7101"', "7101", "rpc_address is missing"),
        ("institution =", 'colour = "red"\ninstitution =', "'colour' is no field"),
        ("institution =", "institution", "not TOML"),
        ("institution =", "institution =" + "[" * 2_000, "not TOML"),
    ],
)
def test_a_wrong_profile_names_what_is_wrong(before: str, after: str, says: str) -> None:
    with pytest.raises(InvalidFile, match=says):
        profile.parse(GOOD.replace(before, after), Path("/"))


@given(st.text())
def test_any_text_is_a_profile_or_an_error(text: str) -> None:
    with pytest.raises(InvalidFile):
        profile.parse(text, Path("/"))


def test_a_certificate_file_is_read_and_checked(tmp_path: Path) -> None:
    text = GOOD.replace(f"'''{PEM}'''", '"node.pem"')
    with pytest.raises(InvalidFile, match="cannot be read"):
        profile.parse(text, tmp_path)
    (tmp_path / "node.pem").write_text("no certificate")
    with pytest.raises(InvalidFile, match="no PEM certificate"):
        profile.parse(text, tmp_path)
    (tmp_path / "node.pem").write_text(PEM)
    assert profile.parse(text, tmp_path).node_certificate == PEM


def test_profiles_are_found_by_path_name_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv(profile.ENVIRONMENT, raising=False)
    with pytest.raises(NotFound, match="no profile was given"):
        profile.load()
    with pytest.raises(NotFound, match="no profile 'analyst'") as caught:
        profile.load("analyst")
    assert caught.value.rule == "unknown-profile"
    file = tmp_path / "koinon" / "profiles" / "analyst.toml"
    file.parent.mkdir(parents=True)
    file.write_text(GOOD)
    assert profile.load("analyst") == profile.load(file) == profile.load(str(file))
    monkeypatch.setenv(profile.ENVIRONMENT, "analyst")
    assert profile.load() == profile.load(file)
    with pytest.raises(NotFound):
        profile.load("../profiles/analyst")  # a name is no path


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * 70_000, b"institution = 1"])
def test_a_file_that_is_no_profile_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "p.toml"
    file.write_bytes(content)
    with pytest.raises(InvalidFile, match=r"p\.toml"):
        profile.load(file)


# --- descriptors

STAGED = StageDatasetResponse(
    columns=[Column(name="rx"), Column(name="age")],
    row_count=3,
    proposed_codelists=[CodelistProposal(column="rx", codes=["0", "1"])],
)


def publish(toml: str, **terms: object) -> object:
    return descriptor.publication("um.c.t", STAGED, descriptor.parse(toml), Terms(**terms))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("title", "not TOML"),
        ("title = 3", "title in the descriptor must be a text"),
        ('title = "T"\nowner = "me"', "no field 'owner'"),
        ('title = "T"\nkeywords = "a"', "keywords"),
        ('title = "T"\ncolumns = 1', "columns in the descriptor must be tables"),
        ('title = "T"\n[columns]\nrx = 1', "columns.rx"),
        ('title = "T"\n[columns.rx]\ncodelist = 1', "codelist of columns.rx"),
        ('title = "T"\n[columns.rx]\ntype = "text"', "no field 'type'"),
        ("", "needs a title"),
        (f'title = "{"T" * 300}"', "the title has 300 characters"),
        (f'title = "T"\n[columns.rx]\ndescription = "{"d" * 3000}"', "description of column rx"),
        ('title = "T"\nkeywords = [""]', "keywords"),
        ('title = "T"\n[columns.sex]\nunit = "1"', "no column 'sex'"),
        ('title = "T"\n[columns.age]\ncodelist = true', "too many different values"),
        ('title = "T"\n[columns.rx]\ncodelist = ["0"]', "leaves out '1'"),
    ],
)
def test_a_wrong_descriptor_names_what_is_wrong(toml: str, says: str) -> None:
    with pytest.raises(KoinonError, match=says):
        publish(toml)


def test_terms_are_checked() -> None:
    with pytest.raises(InvalidInput, match="no access mode"):
        publish('title = "T"', access="open")
    with pytest.raises(InvalidInput, match="no operation"):
        publish('title = "T"', operations=("median",))


def test_three_rows_do_not_show_and_named_codes_are_published_whether_or_not_they_occur() -> None:
    toml = 'title = "T"\n[columns.rx]\ncodelist = ["0", "1", "2"]'
    entry = descriptor.publication("um.c.t", STAGED, descriptor.parse(toml), Terms())
    assert (entry.row_count, entry.row_count_step) == (0, 10)
    assert [list(column.codelist) for column in entry.columns] == [["0", "1", "2"], []]


def test_codelists_named_elsewhere_add_to_the_descriptor_s() -> None:
    both = Descriptor(title="T").with_codelists(["rx"])
    assert list(descriptor.publication("um.c.t", STAGED, both, Terms()).columns[0].codelist) == ["0", "1"]
