"""What each field of a manifest makes of the cluster's objects."""

from itertools import pairwise

import pytest
from support.desired import SPECS, deployment
from support.desired import objects as objects_of

from aurora_buffer.__main__ import _parser as buffer_parser
from aurora_inference.gateway.settings import parse_settings as parse_gateway
from aurora_inference.vllm.__main__ import parse as parse_vllm

COMPONENTS = ("inference", "buffer", "trainer")
LONGEST = "a" * 40


def objects(name="chat", **spec):
    return objects_of(deployment(name, **spec))


def pod_spec(found, component):
    return next(
        made["spec"]["template"]["spec"]
        for (kind, name), made in found.items()
        if kind in ("Deployment", "StatefulSet") and name.startswith(f"chat-{component}")
    )


def container(found, component, name=None):
    return next(
        known
        for known in pod_spec(found, component)["containers"]
        if known["name"] == (name or component)
    )


def flag(found, component, name):
    values = flags(found, component, name)
    return values[0] if values else None


def flags(found, component, name):
    """The values of a flag that may be repeated."""
    command = container(found, component)["command"]
    return [value for known, value in pairwise(command) if known == name]


def test_the_objects_of_a_deployment():
    assert sorted(objects()) == [
        ("Deployment", "chat-inference"),
        ("NetworkPolicy", "chat-buffer"),
        ("NetworkPolicy", "chat-inference"),
        ("NetworkPolicy", "chat-trainer"),
        ("PodDisruptionBudget", "chat-inference"),
        ("Service", "chat-buffer"),
        ("Service", "chat-inference"),
        ("Service", "chat-inference-pods"),
        ("Service", "chat-trainer"),
        ("ServiceAccount", "chat"),
        ("StatefulSet", "chat-buffer"),
        ("StatefulSet", "chat-trainer"),
    ]


def test_all_belong_to_the_deployment_and_fit_their_names():
    for (_, name), made in objects(LONGEST).items():
        assert made["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
        assert made["metadata"]["namespace"] == "serving"
        # Room for a ReplicaSet's hash and a pod's.
        assert len(name) <= 63


@pytest.mark.parametrize("component", ["inference", "buffer", "trainer"])
def test_pods_meet_pod_security_restricted(component):
    spec = pod_spec(objects(), component)
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    for known in spec["containers"]:
        context = known["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert known["imagePullPolicy"] == "IfNotPresent"


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        (None, {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}),
        (
            {"runAsUser": 1000},
            {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "runAsUser": 1000,
            },
        ),
        ({"privileged": True}, {"capabilities": {"drop": ["ALL"]}, "privileged": True}),
        ({"capabilities": {"add": ["NET_RAW"]}}, {"capabilities": {"add": ["NET_RAW"]}}),
    ],
)
@pytest.mark.parametrize("kind", ["containers", "initContainers"])
def test_a_container_of_the_users_has_no_privileges_unless_it_asks(kind, context, expected):
    extra = {"name": "extra", "image": "a"} | (
        {} if context is None else {"securityContext": context}
    )
    template = {"spec": {kind: [extra]}}

    spec = pod_spec(objects(inference={"podTemplate": template}), "inference")

    (made,) = (each for each in spec[kind] if each["name"] == "extra")
    assert made["securityContext"] == expected


def test_a_draft_is_no_part_of_the_inference_pods():
    drafts = [
        {},
        {"initialCheckpoint": {"uri": "pvc://models/draft-0"}},
        {"initialCheckpoint": {"uri": "pvc://models/draft-1"}},
    ]
    templates = [pod_spec(objects(draft=draft), "inference") for draft in drafts]
    assert templates[0] == templates[1] == templates[2]


def test_only_the_trainer_writes_and_only_drafts():
    found = objects()
    volumes = {
        component: {
            volume["persistentVolumeClaim"]["claimName"]: volume["persistentVolumeClaim"].get(
                "readOnly", False
            )
            for volume in pod_spec(found, component)["volumes"]
            if "persistentVolumeClaim" in volume
        }
        for component in ("inference", "trainer")
    }
    assert volumes == {
        "inference": {"models": True, "targets": True},
        "trainer": {"models": False, "targets": True},
    }
    assert flag(found, "trainer", "--models") == "/claims/models/chat"
    assert flag(found, "inference", "--target") == "pvc://targets/qwen"
    assert flag(found, "inference", "--claims") == flag(found, "trainer", "--claims") == "/claims"


@pytest.mark.parametrize(("budget", "share"), [({}, None), ({"maxSharePercent": 10}, "10")])
def test_the_trainer_is_told_its_budget(budget, share):
    found = objects(trainer={"budget": budget} if budget else {})
    assert flag(found, "trainer", "--max-share-percent") == share


def test_redis_is_reached_by_the_buffer_alone():
    found = objects(buffer={"embedded": {"storage": "3Gi", "storageClassName": "fast"}})
    redis = container(found, "buffer", "redis")
    assert "ports" not in redis
    socket = dict(pairwise(redis["command"]))["--socket"]
    assert flag(found, "buffer", "--redis-url") == f"unix://{socket}"
    shared = [
        mount["mountPath"]
        for mount in redis["volumeMounts"]
        if mount in container(found, "buffer", "buffer")["volumeMounts"]
    ]
    assert shared == ["/tmp"]
    assert socket.startswith("/tmp/")
    claim = found["StatefulSet", "chat-buffer"]["spec"]["volumeClaimTemplates"][0]["spec"]
    assert claim["storageClassName"] == "fast"
    assert claim["resources"]["requests"]["storage"] == "3Gi"


def test_an_external_redis_comes_from_its_secret():
    external = {
        "urlSecretRef": {"name": "redis", "key": "url"},
        "caSecretRef": {"name": "redis", "key": "ca"},
    }
    found = objects(buffer={"external": external})
    assert ("Deployment", "chat-buffer") in found
    buffer = container(found, "buffer")
    reference = {"name": "redis", "key": "url"}
    assert {"name": "AURORA_REDIS_URL", "valueFrom": {"secretKeyRef": reference}} in buffer["env"]
    assert flag(found, "buffer", "--redis-url") is None
    assert flag(found, "buffer", "--redis-ca") == "/etc/aurora/redis-ca/ca.crt"
    assert flag(found, "buffer", "--stream") == "aurora:serving/chat:trajectories"


def test_the_autoscaler_owns_the_replicas():
    assert objects(replicas=3)["Deployment", "chat-inference"]["spec"]["replicas"] == 3
    found = objects(replicas=3, inference={"autoscaling": {"maxReplicas": 5}})
    assert "replicas" not in found["Deployment", "chat-inference"]["spec"]
    scaler = found["HorizontalPodAutoscaler", "chat-inference"]["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (1, 5)


def test_a_suspended_trainer_has_no_pod():
    found = objects(trainer={"suspend": True})
    assert found["StatefulSet", "chat-trainer"]["spec"]["replicas"] == 0


PLAINTEXT = {"trainerTraffic": "Plaintext"}


def rank_flag(found, name):
    """The container has the trainer's name, by which a manifest's settings apply to both."""
    command = container(found, "rank", "trainer")["command"]
    return command[command.index(name) + 1]


def test_further_trainers_are_the_ranks_of_the_first():
    found = objects(
        trainer={"replicas": 3, "resources": {"limits": {"cpu": "2"}}}, security=PLAINTEXT
    )
    assert found["StatefulSet", "chat-trainer"]["spec"]["replicas"] == 1
    assert found["Deployment", "chat-rank"]["spec"]["replicas"] == 2
    assert ("Service", "chat-rank") not in found
    assert flag(found, "trainer", "--ranks") == "3"
    assert flag(found, "trainer", "--ranks-listen") == "[::]:29400"
    assert rank_flag(found, "--trainer") == "chat-trainer.serving.svc:29400"
    spec = pod_spec(found, "rank")
    (rank,) = spec["containers"]
    # They have the trainer's place in the manifest.
    assert (rank["name"], rank["resources"]) == ("trainer", {"limits": {"cpu": "2"}})
    # Neither models nor certificates: they may run where no claim can be mounted.
    assert {volume["name"] for volume in spec["volumes"]} == {"tmp"}


def test_ranks_that_recompute_hold_the_target():
    found = objects(trainer={"replicas": 2, "targets": "Recompute"}, security=PLAINTEXT)
    assert rank_flag(found, "--target") == flag(found, "trainer", "--target")
    assert rank_flag(found, "--claims") == "/claims"
    claims = [
        volume["persistentVolumeClaim"]
        for volume in pod_spec(found, "rank")["volumes"]
        if "persistentVolumeClaim" in volume
    ]
    assert claims
    assert all(claim["readOnly"] for claim in claims)


@pytest.mark.parametrize("trainer", [{}, {"replicas": 3, "suspend": True}])
def test_without_further_trainers_nothing_is_there_of_them(trainer):
    found = objects(trainer=trainer, security=PLAINTEXT)
    assert not [name for _, name in found if name == "chat-rank"]
    assert flag(found, "trainer", "--ranks-listen") is None


def test_certificates_and_tokens_are_mounted():
    found = objects(security={"authSecretRef": {"name": "tokens"}})
    mounts = {m["mountPath"] for m in container(found, "inference")["volumeMounts"]}
    assert {"/etc/aurora/tls", "/etc/aurora/tokens"} <= mounts
    assert flag(found, "inference", "--tls") == "/etc/aurora/tls"
    assert flag(found, "inference", "--tokens") == "/etc/aurora/tokens"
    plain = objects(security={"tls": {"mode": "Disabled"}})
    assert flag(plain, "inference", "--tls") is None
    assert flag(plain, "inference", "--tokens") is None


def test_each_component_admits_its_callers_in_the_deployment():
    found = objects()
    assert {component: flags(found, component, "--admit") for component in COMPONENTS} == {
        "inference": ["chat-operator.serving.svc"],
        "buffer": ["chat-inference.serving.svc", "chat-trainer.serving.svc"],
        "trainer": ["chat-operator.serving.svc"],
    }
    plain = objects(security={"tls": {"mode": "Disabled"}})
    assert not any(flags(plain, component, "--admit") for component in COMPONENTS)


def test_cert_manager_issues_where_asked():
    tls = {"mode": "CertManager", "issuerRef": {"name": "ours", "kind": "ClusterIssuer"}}
    found = objects(security={"tls": tls})
    names = sorted(name for kind, name in found if kind == "Certificate")
    assert names == ["chat-buffer-tls", "chat-inference-tls", "chat-operator-tls",
                     "chat-trainer-tls"]  # fmt: skip
    for peer in (*COMPONENTS, "operator"):
        spec = found["Certificate", f"chat-{peer}-tls"]["spec"]
        assert spec["secretName"] == f"chat-{peer}-tls"
        assert spec["issuerRef"]["name"] == "ours"
        assert spec["dnsNames"] == [f"chat-{peer}.serving.svc"]
        # A common name would be one more name.
        assert not spec.keys() & {"commonName", "uris", "ipAddresses", "emailAddresses"}


def test_images_and_resources_and_templates_are_the_users():
    found = objects(
        inference={
            "image": "mine:2",
            "resources": {"limits": {"nvidia.com/gpu": "1"}},
            "podTemplate": {
                "metadata": {"labels": {"team": "x", "app.kubernetes.io/instance": "other"}},
                "spec": {"priorityClassName": "high", "volumes": [{"name": "extra"}]},
            },
        }
    )
    main = container(found, "inference")
    assert main["image"] == "mine:2"
    assert main["resources"] == {"limits": {"nvidia.com/gpu": "1"}}
    template = found["Deployment", "chat-inference"]["spec"]["template"]
    assert template["metadata"]["labels"]["team"] == "x"
    assert template["metadata"]["labels"]["app.kubernetes.io/instance"] == "chat"
    assert template["spec"]["priorityClassName"] == "high"
    assert {"name": "extra"} in template["spec"]["volumes"]


def test_the_same_deployment_makes_the_same_objects():
    assert objects() == objects()


def test_loading_is_not_taken_for_hanging():
    found = objects()
    for component in ("inference", "trainer"):
        startup = container(found, component)["startupProbe"]
        assert startup["periodSeconds"] * startup["failureThreshold"] == 3600


def test_the_buffer_outlives_an_outage_of_redis():
    # Its health says NOT_SERVING then: it gets no traffic, and stays.
    buffer = container(objects(), "buffer")
    assert buffer["readinessProbe"]["grpc"] == {"port": 9002}
    assert buffer["livenessProbe"]["tcpSocket"] == {"port": "health"}


def test_the_drain_ends_within_the_grace():
    found = objects()
    grace = pod_spec(found, "inference")["terminationGracePeriodSeconds"]
    wait = container(found, "inference")["lifecycle"]["preStop"]["sleep"]["seconds"]
    # Drained, the outcomes of a live rollout are fetched, and the engine stops.
    assert wait + int(flag(found, "inference", "--drain-seconds")) + 10 <= grace


@pytest.mark.parametrize(
    ("constraints", "keys"),
    [
        ([], ["kubernetes.io/hostname"]),
        (
            [{"topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 1}],
            ["kubernetes.io/hostname", "zone"],
        ),
        (None, []),
    ],
)
def test_the_spread_is_the_users_to_change(constraints, keys):
    template = {"spec": {"topologySpreadConstraints": constraints}}
    spec = pod_spec(objects(inference={"podTemplate": template}), "inference")
    found = spec.get("topologySpreadConstraints", [])
    assert [constraint["topologyKey"] for constraint in found] == keys


def test_service_ports_name_what_they_speak():
    def protocols(**spec):
        return {
            name: [port["appProtocol"] for port in made["spec"]["ports"]]
            for (kind, name), made in objects(**spec).items()
            if kind == "Service"
        }

    clients = {
        "chat-inference": ["http", "kubernetes.io/h2c"],
        "chat-inference-pods": ["http", "kubernetes.io/h2c"],
    }
    assert protocols() == {**clients, "chat-buffer": ["https"], "chat-trainer": ["https"]}
    assert protocols(security={"tls": {"mode": "Disabled"}}) == {
        **clients,
        "chat-buffer": ["kubernetes.io/h2c"],
        "chat-trainer": ["kubernetes.io/h2c"],
    }


def test_a_path_is_no_place_for_a_kubelets_variables():
    found = objects(target={"uri": "file:///models/$(HOME)"})
    assert flag(found, "inference", "--target") == "file:///models/$$(HOME)"


@pytest.mark.parametrize("resource", ["nvidia.com/gpu", "amd.com/gpu", "nvidia.com/mig-1g.10gb"])
def test_a_component_with_a_gpu_computes_on_it(resource):
    gpu = {"resources": {"limits": {resource: 1}}}
    found = objects(inference=gpu, trainer=gpu)
    for component in ("inference", "trainer"):
        assert flag(found, component, "--device") == "cuda"
    found = objects(inference={**gpu, "device": "cuda:0"}, trainer={"device": "cpu"})
    assert flag(found, "inference", "--device") == "cuda:0"
    assert flag(found, "trainer", "--device") == "cpu"


def test_without_a_gpu_the_device_is_left_to_the_component():
    found = objects(inference={"resources": {"limits": {"cpu": 4, "nvidia.com/gpu": 0}}})
    for component in ("inference", "trainer"):
        assert "--device" not in pod_spec(found, component)["containers"][0]["command"]


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_each_component_understands_its_command(spec):
    inference = pytest.importorskip("aurora_inference.settings")
    trainer = pytest.importorskip("aurora_trainer.settings")
    parse = {
        "aurora_inference": inference.parse_settings,
        "aurora_inference.gateway": parse_gateway,
        "aurora_inference.vllm": parse_vllm,
        "aurora_trainer": trainer.parse_settings,
        "aurora_buffer": buffer_parser().parse_args,
    }
    found = objects(**spec)
    for component in ("inference", "trainer", "buffer", "rank"):
        if component == "rank" and ("Deployment", "chat-rank") not in found:
            continue
        pod = pod_spec(found, component)
        for known in (*pod.get("initContainers", ()), *pod["containers"]):
            if known["name"] in ("fetch", "sidecar", "vllm"):
                continue
            python, option, module, *arguments = known["command"]
            assert (python, option) == ("python", "-m")
            parse[module](arguments)
