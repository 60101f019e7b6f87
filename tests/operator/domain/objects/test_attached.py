"""A vLLM that others own: a gateway for each of its pods, and nothing in them."""

import pytest
from support.desired import ENGINES, SPECS, deployment
from support.desired import objects as objects_of

from aurora_inference.gateway.settings import parse_settings
from aurora_operator.domain.objects.attached import EnginePod, engine_pods, engine_selector

ATTACHED = SPECS["attached"]


@pytest.fixture
def made():
    return lambda **spec: objects_of(deployment(**{**ATTACHED, **spec}))


@pytest.fixture
def gateways(made):
    """The gateways' Deployments in the order of their engines."""

    def gateways(**spec):
        found = made(**spec)
        return [found["Deployment", f"chat-inference-{engine.label}"] for engine in ENGINES]

    return gateways


def pod_of(gateway):
    return gateway["spec"]["template"]["spec"]


def settings_of(gateway):
    (container,) = pod_of(gateway)["containers"]
    return parse_settings(container["command"][3:])


def pod(name="vllm-0", *, phase="Running", address="10.0.0.7", **metadata):
    status = {"phase": phase, **({"podIP": address} if address else {})}
    return {"metadata": {"name": name, "uid": f"uid-{name}", **metadata}, "status": status}


def test_each_engine_has_a_gateway_of_its_own(made, gateways):
    deployments = [name for kind, name in made() if kind == "Deployment"]

    assert len([name for name in deployments if name.startswith("chat-inference")]) == 2
    assert [settings_of(gateway).engine for gateway in gateways()] == [
        "http://10.0.0.7:8100",
        "http://[fd00::7]:8100",
    ]


def test_no_gateway_selects_anothers_pods(gateways):
    one, other = gateways()
    selected = one["spec"]["selector"]["matchLabels"]

    assert selected.items() <= one["spec"]["template"]["metadata"]["labels"].items()
    assert not selected.items() <= other["spec"]["template"]["metadata"]["labels"].items()


def test_the_services_and_the_budget_are_of_all_gateways(made, gateways):
    found = made()
    for kind, name in (("Service", "chat-inference"), ("Service", "chat-inference-pods")):
        selected = found[kind, name]["spec"]["selector"]
        for gateway in gateways():
            assert selected.items() <= gateway["spec"]["template"]["metadata"]["labels"].items()
    budget = found["PodDisruptionBudget", "chat-inference"]["spec"]["selector"]["matchLabels"]
    assert "aurora.dev/engine" not in budget


def test_the_key_is_read_from_the_secret_that_the_manifest_names(gateways):
    gateway = gateways()[0]
    settings = settings_of(gateway)
    volume = next(one for one in pod_of(gateway)["volumes"] if one["name"] == "engine-key")
    mounts = {
        one["name"]: one["mountPath"] for one in pod_of(gateway)["containers"][0]["volumeMounts"]
    }

    assert volume["secret"]["secretName"] == "vllm"
    assert volume["secret"]["items"] == [{"key": "api-key", "path": "key"}]
    assert str(settings.engine_key) == f"{mounts['engine-key']}/key"


def test_when_it_leaves_the_engine_gets_its_first_draft_back(gateways):
    assert settings_of(gateways()[0]).put_back


def test_clients_keep_their_keys_unless_the_manifest_gives_them_tokens(gateways):
    assert settings_of(gateways()[0]).pass_authorization
    guarded = settings_of(gateways(security={"authSecretRef": {"name": "tokens"}})[0])
    assert guarded.tokens is not None
    assert not guarded.pass_authorization


def test_its_gateways_may_connect_to_the_engine(made):
    policy = made()["NetworkPolicy", "chat-inference"]["spec"]["egress"]

    assert {
        "to": [{"podSelector": {"matchLabels": {"app": "vllm", "model": "qwen"}}}],
        "ports": [{"port": 8100, "protocol": "TCP"}],
    } in policy


def test_a_pod_is_an_engine_while_it_runs():
    found = engine_pods(
        [
            pod("b"),
            pod("a"),
            pod("starting", phase="Pending"),
            pod("without-address", address=""),
            pod("ending", deletionTimestamp="2026-01-01T00:00:00Z"),
            pod("gateway", labels={"app.kubernetes.io/managed-by": "aurora-operator"}),
        ]
    )

    assert [engine.name for engine in found] == ["a", "b"]


def test_a_pod_of_the_same_name_is_another_engine():
    labels = {EnginePod("vllm-0", uid, "10.0.0.7").label for uid in ("1", "2")}
    assert len(labels) == 2


def test_the_selector_is_as_the_api_server_takes_it():
    attach = deployment(**ATTACHED).spec.engine.attach
    assert engine_selector(attach) == "app=vllm,model=qwen"
