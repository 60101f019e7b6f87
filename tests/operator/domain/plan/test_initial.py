import json
from pathlib import Path

import pytest

from aurora_common.errors import InvalidInputError
from aurora_operator.domain.manifest.parser import parse_manifest
from aurora_operator.domain.plan.initial import initial_draft
from aurora_operator.domain.status.deployment import Draft

from ..conftest import MANIFEST

CLAIMS = Path("/claims")
DIGEST = "sha256:" + "a" * 64


def manifest(**checkpoint):
    spec = {**MANIFEST["spec"], "draft": {"initialCheckpoint": checkpoint}}
    return parse_manifest(json.dumps({**MANIFEST, "spec": spec}), "test")


def test_it_lies_where_inference_finds_it():
    draft = initial_draft(manifest(uri="pvc://models/drafts/first", digest=DIGEST), claims=CLAIMS)
    assert draft == Draft("first", DIGEST, "file:///claims/models/drafts/first")


def test_without_a_digest_its_files_say_what_it_is():
    draft = initial_draft(manifest(uri="file:///models/first"), claims=CLAIMS)
    assert draft == Draft("first", "", "file:///models/first")


def test_none_is_named(deployment):
    assert initial_draft(deployment, claims=CLAIMS) is None


def test_it_does_not_leave_its_claim():
    with pytest.raises(InvalidInputError, match="without"):
        initial_draft(manifest(uri="pvc://models/../secrets"), claims=CLAIMS)
