import json

import pytest

from aurora_operator.domain.manifest.parser import parse_manifest

MANIFEST = {
    "apiVersion": "aurora.dev/v1alpha1",
    "kind": "AuroraDeployment",
    "metadata": {"name": "chat"},
    "spec": {
        "target": {"uri": "file:///models/target"},
        "buffer": {"embedded": {}},
        "modelStore": {"pvc": {"claimName": "models"}},
        "rollout": {
            "steps": [{"weightPercent": 20}, {"weightPercent": 50}],
            "analysis": {"method": "Canary", "minRequests": 40, "maxDuration": "1h"},
        },
    },
}


@pytest.fixture
def deployment():
    return parse_manifest(json.dumps(MANIFEST), "test")
