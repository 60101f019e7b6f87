"""The manifests of the soak are those that an API server takes."""

from __future__ import annotations

import json

import pytest
from benchmarks.cluster import body
from benchmarks.soak import VARIANTS

from aurora_operator.domain.manifest.parser import parse_manifest


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_variant_breaks_no_rule(variant):
    manifest = body("soak")
    manifest["spec"] |= variant
    parse_manifest(json.dumps(manifest), "soak")
