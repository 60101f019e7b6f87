"""Model URIs become folders."""

import os
from pathlib import Path

import pytest

from aurora_common.errors import InvalidInputError
from aurora_common.store.model_store import model_uri
from aurora_common.store.registry import StoreRegistry, model_store


@pytest.fixture
def claims(tmp_path) -> Path:
    (tmp_path / "claims" / "models").mkdir(parents=True)
    return tmp_path / "claims"


@pytest.mark.parametrize("uri", ["file:///models/a%20b", "file://localhost/models/a%20b"])
def test_a_file_uri_names_a_folder_of_this_machine(uri):
    assert model_store().fetch(uri) == Path("/models/a b")


@pytest.mark.parametrize("uri", ["file://elsewhere/models", "file://"])
def test_a_file_uri_without_a_local_absolute_path_is_refused(uri):
    with pytest.raises(InvalidInputError, match="use file:///folder"):
        model_store().fetch(uri)


@pytest.mark.parametrize(
    ("uri", "folder"),
    [("pvc://models", ""), ("pvc://models/", ""), ("pvc://models/drafts/a%20b", "drafts/a b")],
)
def test_a_pvc_uri_names_a_folder_of_its_claim(claims, uri, folder):
    assert model_store(claims=claims).fetch(uri) == claims / "models" / folder


@pytest.mark.parametrize(
    "uri", ["pvc://models/../secrets", "pvc://models/%2e%2e/secrets", "pvc:///etc", "pvc://../etc"]
)
def test_a_pvc_uri_never_leaves_its_claim(claims, uri):
    with pytest.raises(InvalidInputError, match="use pvc://claim/folder"):
        model_store(claims=claims).fetch(uri)


def test_a_link_never_leaves_its_claim(claims, tmp_path):
    (claims / "models" / "link").symlink_to(tmp_path)
    with pytest.raises(InvalidInputError, match="use pvc://claim/folder"):
        model_store(claims=claims).fetch("pvc://models/link")


def test_a_file_that_links_out_of_its_claim_is_refused(claims, tmp_path):
    (tmp_path / "secret").write_text("key")
    (claims / "models" / "kept").write_text("weights")
    (claims / "models" / "linked").symlink_to(claims / "models" / "kept")
    assert model_store(claims=claims).fetch("pvc://models")
    (claims / "models" / "aurora.json").symlink_to(tmp_path / "secret")
    with pytest.raises(InvalidInputError, match=r"'aurora\.json' in .* is not a regular file"):
        model_store(claims=claims).fetch("pvc://models")


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_what_is_not_a_regular_file_is_refused(tmp_path, kind):
    if kind == "fifo":
        os.mkfifo(tmp_path / "aurora.json")
    else:
        (tmp_path / "aurora.json").symlink_to("/dev/zero")
    with pytest.raises(InvalidInputError, match=r"'aurora\.json' in .* is not a regular file"):
        model_store().fetch(tmp_path.as_uri())


def test_a_pvc_uri_needs_the_folder_of_mounted_claims():
    with pytest.raises(InvalidInputError, match="'pvc://models/a' needs --claims"):
        model_store().fetch("pvc://models/a")


@pytest.mark.parametrize("uri", ["s3://bucket/model", "/models/a", ""])
def test_an_unknown_scheme_is_refused_with_those_that_are_served(uri):
    with pytest.raises(InvalidInputError, match=rf"'{uri}'; served are file://, pvc://"):
        model_store().fetch(uri)


def test_a_scheme_is_added_by_its_store():
    class Hub:
        def fetch(self, uri: str) -> Path:
            return Path("/cache") / uri.removeprefix("hf://")

    assert StoreRegistry({"hf": Hub()}).fetch("hf://org/model") == Path("/cache/org/model")


def test_a_plain_folder_is_given_as_its_uri(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert model_uri("pvc://models/a") == "pvc://models/a"
    assert model_uri("/models/a b") == "file:///models/a%20b"
    assert model_store().fetch(model_uri("a b")) == tmp_path / "a b"
