import json
from pathlib import Path

import pytest

from aurora_common.errors import InvalidInputError
from aurora_operator.domain.manifest.parser import parse_manifest
from aurora_operator.local.layout import Layout
from aurora_operator.local.preflight import check_socket


def deployment(buffer):
    content = {
        "apiVersion": "aurora.dev/v1alpha1",
        "kind": "AuroraDeployment",
        "metadata": {"name": "chat"},
        "spec": {
            "target": {"uri": "pvc://models/target"},
            "buffer": buffer,
            "modelStore": {"pvc": {"claimName": "models"}},
        },
    }
    return parse_manifest(json.dumps(content), "test")


def test_a_data_directory_leaves_room_for_the_path_of_a_socket():
    longest = "/" + "d" * (103 - len("//redis/redis.sock"))
    check_socket(deployment({"embedded": {}}), Layout(Path(longest)))
    too_long = Layout(Path(longest + "ddd"))
    with pytest.raises(InvalidInputError, match=r"3 bytes too long .* with --data-dir"):
        check_socket(deployment({"embedded": {}}), too_long)
    check_socket(deployment({"external": {"url": "redis://elsewhere:6379/0"}}), too_long)
