import json

import pytest

from aurora_common.errors import InvalidInputError
from aurora_operator.domain.manifest.parser import parse_manifest
from aurora_operator.domain.plan.initial import initial_draft
from aurora_operator.domain.status.deployment import Draft

from ..conftest import MANIFEST

DIGEST = "sha256:" + "a" * 64


def manifest(**checkpoint):
    spec = {**MANIFEST["spec"], "draft": {"initialCheckpoint": checkpoint}}
    return parse_manifest(json.dumps({**MANIFEST, "spec": spec}), "test")


def test_its_uri_is_the_manifests_own():
    draft = initial_draft(manifest(uri="pvc://models/drafts/first", digest=DIGEST))
    assert draft == Draft("first", DIGEST, "pvc://models/drafts/first")


def test_without_a_digest_its_files_say_what_it_is():
    draft = initial_draft(manifest(uri="file:///models/first"))
    assert draft == Draft("first", "", "file:///models/first")


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("pvc://models", "models"),
        ("pvc://models/drafts/first/", "first"),
        ("file:///models/./a%20draft/.", "a draft"),
    ],
)
def test_it_is_named_after_its_folder(uri, name):
    assert initial_draft(manifest(uri=uri)).checkpoint == name


def test_none_is_named(deployment):
    assert initial_draft(deployment) is None


def test_it_does_not_leave_its_claim():
    with pytest.raises(InvalidInputError, match="without"):
        initial_draft(manifest(uri="pvc://models/../secrets"))
