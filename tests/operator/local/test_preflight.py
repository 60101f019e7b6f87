import json
from pathlib import Path

import pytest
from support.desired import NODES
from support.desired import deployment as desired

from aurora_common.errors import InvalidInputError, NotFoundError
from aurora_operator.domain.manifest.parser import parse_manifest
from aurora_operator.domain.manifest.spec.engine import Attach
from aurora_operator.local.layout import Layout
from aurora_operator.local.preflight import check_attached, check_engine, check_socket


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


def attach(**fields):
    return Attach.model_validate(fields)


def test_an_attached_vllm_is_on_this_machine_and_its_key_can_be_read(tmp_path):
    key = tmp_path / "key"
    on_machine = attach(url="http://127.0.0.1:8000", keyFile=str(key))
    with pytest.raises(NotFoundError, match=f"keyFile: {key} is missing"):
        check_attached(on_machine)
    key.write_text("k")
    check_attached(on_machine)

    in_cluster = attach(selector={"app": "vllm"}, keySecretRef={"name": "vllm", "key": "key"})
    with pytest.raises(InvalidInputError, match="there are none on one machine: use url"):
        check_attached(in_cluster)


def test_one_machine_is_one_node():
    with pytest.raises(InvalidInputError, match=r"spec\.engine\.nodes: this is one machine"):
        check_engine(desired(**NODES))
