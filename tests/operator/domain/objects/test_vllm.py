"""A stock vLLM in a pod: who runs what, in which order they start and end."""

from itertools import pairwise

import pytest
from support.desired import SPECS, deployment
from support.desired import objects as objects_of

from aurora_inference.gateway.settings import parse_settings


@pytest.fixture
def made():
    return lambda **spec: objects_of(deployment(**{**SPECS["vllm"], **spec}))


@pytest.fixture
def pod(made):
    def pod(**spec):
        return made(**spec)["Deployment", "chat-inference"]["spec"]["template"]["spec"]

    return pod


def containers(spec):
    return {each["name"]: each for each in (*spec["initContainers"], *spec["containers"])}


def flag(container, name):
    return next(value for known, value in pairwise(container["command"]) if known == name)


def test_aurora_prepares_the_gateway_starts_first_and_vllm_is_the_users(pod):
    spec = pod()

    assert [each["name"] for each in spec["initContainers"]] == ["prepare", "inference"]
    assert [each["name"] for each in spec["containers"]] == ["vllm"]
    found = containers(spec)
    assert found["inference"]["restartPolicy"] == "Always"
    # With one, vLLM would not be started before the gateway is ready, which waits for vLLM.
    assert "startupProbe" not in found["inference"]
    assert [found[name]["image"] for name in ("prepare", "inference", "vllm")] == [
        "inference:1",
        "inference:1",
        "vllm/vllm-openai:v0.32.0",
    ]
    assert found["vllm"]["command"] == ["/bin/sh", "/aurora/start"]
    assert found["vllm"]["resources"] == {"limits": {"nvidia.com/gpu": "2"}}
    assert "resources" not in found["inference"]


def test_flags_are_passed_on(pod):
    prepare = containers(pod(inference={"maxContextTokens": 4096}))["prepare"]

    assert prepare["command"][:4] == ["python", "-m", "aurora_inference.vllm", "prepare"]
    own = prepare["command"].index("--")
    assert prepare["command"][own + 1 :] == [
        "--tensor-parallel-size=2",
        "--gpu-memory-utilization",
        "0.8",
    ]
    assert flag(prepare, "--draft") == "pvc://drafts/first"
    assert flag(prepare, "--model-name") == "chat"
    assert flag(prepare, "--max-context-tokens") == "4096"
    steps = [value for name, value in pairwise(prepare["command"]) if name.endswith("batch-size")]
    assert steps == ["1:4", "9:0"]


def test_the_gateway_understands_its_flags(pod):
    gateway = containers(pod())["inference"]
    settings = parse_settings(gateway["command"][3:])

    assert settings.engine == f"http://{flag(containers(pod())['prepare'], '--listen')}"
    assert settings.tokens is not None
    assert settings.tls is not None
    assert settings.admit
    assert settings.capture_percent == 100
    assert str(settings.engine_key) == "/aurora/key"


def test_a_head_is_served_as_one_and_learns_from_tokens_alone():
    made = objects_of(deployment(**SPECS["head"]))
    pods = made["Deployment", "chat-inference"]["spec"]["template"]["spec"]
    trainer = made["StatefulSet", "chat-trainer"]["spec"]["template"]["spec"]["containers"][0]

    assert flag(containers(pods)["prepare"], "--draft-kind") == "eagle3"
    assert flag(containers(pods)["inference"], "--capture-percent") == "0"
    assert flag(trainer, "--draft-kind") == "eagle3"
    assert flag(trainer, "--targets") == "Recompute"


def test_the_gateway_stops_admitting_before_vllm_is_told(pod):
    spec = pod()
    found = containers(spec)
    (hook,) = found["vllm"]["lifecycle"].values()
    program = hook["exec"]["command"]

    compile(program[2], "preStop", "exec")
    assert f"http://{flag(found['inference'], '--drain-listen')}/drain" in program[2]
    drain = int(flag(found["inference"], "--drain-seconds"))
    assert drain + 15 <= spec["terminationGracePeriodSeconds"]


def test_every_container_meets_pod_security_restricted(pod):
    for each in containers(pod()).values():
        context = each["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_the_same_volume_holds_what_was_prepared(pod):
    spec = pod()
    for each in containers(spec).values():
        mounts = {mount["name"]: mount["mountPath"] for mount in each["volumeMounts"]}
        assert mounts["vllm"] == "/aurora"
        assert mounts["claim-drafts"] == "/claims/drafts"
    names = [volume["name"] for volume in spec["volumes"]]
    assert len(names) == len(set(names))


def test_services_offer_what_a_gateway_serves(made):
    for name in ("chat-inference", "chat-inference-pods"):
        ports = made()["Service", name]["spec"]["ports"]
        assert [port["name"] for port in ports] == ["http"]


def test_a_template_reaches_each_container(pod):
    template = {
        "spec": {
            "containers": [{"name": "vllm", "env": [{"name": "VLLM_USE_V1", "value": "1"}]}],
            "initContainers": [{"name": "inference", "env": [{"name": "MORE", "value": "1"}]}],
        }
    }
    found = containers(pod(inference={"podTemplate": template}))

    assert {"name": "VLLM_USE_V1", "value": "1"} in found["vllm"]["env"]
    assert {"name": "MORE", "value": "1"} in found["inference"]["env"]
    assert found["inference"]["restartPolicy"] == "Always"
