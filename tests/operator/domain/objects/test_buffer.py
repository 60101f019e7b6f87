"""Redis' container and its settings follow from the manifest's storage and memory."""

import itertools
import json

import pytest
from support.desired import SETTING
from support.manifest import changed

from aurora_operator.domain.manifest.parser import parse_manifest
from aurora_operator.domain.objects.buffer import buffer_objects


def containers(buffer):
    deployment = parse_manifest(json.dumps(changed("spec.buffer", buffer)), "test")
    workload = buffer_objects(deployment, SETTING)[0]
    found = workload["spec"]["template"]["spec"]["containers"]
    return {container["name"]: container for container in found}


def flags(container):
    return dict(itertools.pairwise(container["command"]))


def test_redis_has_a_limit_and_knows_it():
    redis = containers({"embedded": {}})["redis"]
    assert redis["resources"] == {
        "limits": {"memory": str(4 << 30)},
        "requests": {"memory": str(2 << 30)},
    }
    found = flags(redis)
    assert found["--memory-bytes"] == str(4 << 30)
    assert found["--storage-bytes"] == str(20 << 30)
    assert found["--max-bytes"] == str(2 << 30)


def test_the_manifests_resources_come_first():
    given = {"limits": {"memory": "1Gi", "cpu": 2}, "requests": {"memory": "1Gi"}}
    redis = containers({"embedded": {"resources": given}})["redis"]
    assert redis["resources"] == {
        "limits": {"memory": "1Gi", "cpu": "2"},
        "requests": {"memory": "1Gi"},
    }
    assert flags(redis)["--memory-bytes"] == str(1 << 30)


@pytest.mark.parametrize("kind", ["embedded", "external"])
def test_the_buffer_sees_the_disk_of_its_own_redis(kind):
    given = {"embedded": {}, "external": {"url": "redis://redis"}}[kind]
    found = containers({kind: given})["buffer"]
    mounts = [mount for mount in found["volumeMounts"] if mount["name"] == "redis"]
    if kind == "external":
        assert (mounts, "--redis-dir" in found["command"]) == ([], False)
        return
    (mount,) = mounts
    assert mount["readOnly"]
    assert flags(found)["--redis-dir"] == mount["mountPath"]
