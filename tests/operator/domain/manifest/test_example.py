from pathlib import Path

import pytest

from aurora_operator.domain.manifest.parser import parse_manifest

EXAMPLES = [
    path
    for path in sorted((Path(__file__).parents[4] / "examples").glob("*.yaml"))
    if "kind: AuroraDeployment" in path.read_text()
]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_each_example_is_valid(path):
    assert parse_manifest(path.read_text(), path.name).spec.rollout.steps
