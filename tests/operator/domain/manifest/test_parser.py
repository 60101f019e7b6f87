import json

import pytest
import yaml
from support.manifest import BAD, MINIMAL, changed

from aurora_common.errors import ManifestError
from aurora_operator.domain.manifest.parser import deployment_from_object, parse_manifest


def problems_of(text):
    with pytest.raises(ManifestError) as caught:
        parse_manifest(text, "test.yaml")
    return caught.value.problems


def test_defaults():
    deployment = parse_manifest(yaml.safe_dump(MINIMAL), "test.yaml")
    spec = deployment.spec
    assert deployment.metadata.namespace == "default"
    assert spec.target.dtype == "bfloat16"
    assert spec.draft.initial_checkpoint is None
    assert (spec.draft.speculation_length.max, spec.draft.speculation_length.adaptive) == (6, True)
    assert (spec.inference.max_batch, spec.inference.max_waiting) == (8, 64)
    assert spec.buffer.embedded.appendfsync == "everysec"
    assert spec.buffer.retention.max_age_seconds == 86_400
    assert spec.buffer.retention.max_bytes is None
    assert spec.buffer.retained_bytes == 2 << 30
    assert spec.trainer.hyperparameters.learning_rate == "1e-4"
    assert spec.model_store.keep == 5
    assert [step.weight_percent for step in spec.rollout.steps] == [5, 20, 50]
    assert spec.rollout.analysis.alpha == "0.01"


def test_what_a_manifest_dumps_it_reads():
    deployment = parse_manifest(yaml.safe_dump(MINIMAL), "test.yaml")
    dumped = deployment.model_dump_json(by_alias=True)
    assert parse_manifest(dumped, "dumped") == deployment


def test_json_that_escapes_characters_above_u_ffff():
    content = changed("spec.target.uri", "file:///models/🙂")
    deployment = parse_manifest(json.dumps(content), "test.json")
    assert deployment.spec.target.uri == "file:///models/🙂"


GOOD = [
    ("spec.target.uri", "pvc://models/target"),
    ("spec.target.dtype", "float32"),
    ("spec.draft.initialCheckpoint", {"uri": "pvc://models/d", "digest": "sha256:" + "a" * 64}),
    ("spec.draft.speculationLength", {"max": 0, "adaptive": False}),
    ("spec.inference.maxContextTokens", 4096),
    ("spec.buffer", {"external": {"url": "redis://:secret@redis.example:6379/0"}}),
    ("spec.buffer", {"embedded": None, "external": {"url": "rediss://redis/0"}}),
    ("spec.buffer.retention", {"maxAge": "1h30m", "maxBytes": "500M"}),
    ("spec.inference.resources", {"limits": {"memory": 2e9, "cpu": "2e0"}}),
    ("spec.buffer.retention", {"maxBytes": "2e9"}),
    ("spec.inference", {"device": "cuda:1", "resources": {"limits": {"nvidia.com/gpu": 2}}}),
    ("spec.inference", {"device": "cpu", "resources": {"limits": {"nvidia.com/gpu": 0}}}),
    ("spec.trainer", {"device": "auto", "resources": {"limits": {"amd.com/gpu": 1}}}),
    ("spec.trainer.suspend", True),
    ("spec.trainer.objective", "ForwardKL"),
    ("spec.trainer.optimizer", "Muon"),
    ("spec.trainer.trigger.minInterval", "0s"),
    ("spec.rollout.steps", [{"weightPercent": 1}, {"weightPercent": 99}]),
    ("spec.rollout.analysis.alpha", "1e-3"),
    ("metadata.labels", {"team": "serving"}),
]


@pytest.mark.parametrize(("path", "value"), GOOD)
def test_accepted(path, value):
    parse_manifest(yaml.safe_dump(changed(path, value)), "test.yaml")


# The value set at a path, the path that the problem names, and a part of what it says.
@pytest.mark.parametrize(("path", "value", "where", "says"), BAD)
def test_refused(path, value, where, says):
    (problem,) = problems_of(yaml.safe_dump(changed(path, value)))
    assert problem.startswith(f"{where}: ")
    assert says in problem


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no document"),
        ("# nothing\n---\n---\n", "no document"),
        (
            "kind: Secret\n---\nkind: Namespace\n---\nkind: Secret\n",
            "3 objects (1 of Namespace, 2 of Secret); exactly one AuroraDeployment is expected",
        ),
        (f"{yaml.safe_dump(MINIMAL)}---\n{yaml.safe_dump(MINIMAL)}", "2 of AuroraDeployment"),
        ("kind: List\nitems: []\n", "no document"),
        ("just text", '"just text" is not an object'),
        ("[1, 2]", "is not an object"),
        ("a: [", "line 1, column 5: not YAML"),
        ("a: b: c", "not YAML"),
        ("a: !!python/object:os.system {}", "not YAML"),
        ("? [a]\n: 1", "not YAML"),
        ("a: 2026-13-45", "not YAML"),
        ("a: \x00", "not YAML"),
        ("#" * (1 << 20 | 1), "longer than"),
    ],
)
def test_not_one_document(text, says):
    assert any(says in problem for problem in problems_of(text))


STORED = {
    **MINIMAL,
    "metadata": {
        **MINIMAL["metadata"],
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "generation": 3,
        "managedFields": [{"manager": "kubectl"}],
        "resourceVersion": "123",
        "uid": "7c5d",
    },
    "status": {"observedGeneration": 3, "conditions": []},
}


@pytest.mark.parametrize(
    "text",
    [
        yaml.safe_dump(MINIMAL) + "---\n",
        "---\n# ours\n---\n" + yaml.safe_dump(MINIMAL) + "...\n---\n# the end\n",
        "\ufeff" + yaml.safe_dump(MINIMAL),
        yaml.safe_dump(MINIMAL).replace("\n", "\r\n"),
        "kind: Namespace\n---\n" + yaml.safe_dump(MINIMAL),
        json.dumps(MINIMAL),
        json.dumps(MINIMAL, indent="\t"),
        yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": [MINIMAL]}),
        yaml.safe_dump({"kind": "AuroraDeploymentList", "items": [STORED]}),
        yaml.safe_dump(STORED),
        json.dumps(STORED, indent=4),
    ],
)
def test_what_kubectl_takes(text):
    spec = parse_manifest(yaml.safe_dump(MINIMAL), "test.yaml").spec
    assert parse_manifest(text, "test.yaml").spec == spec


def test_a_misspelt_field_of_the_metadata_is_named():
    (problem,) = problems_of(yaml.safe_dump(changed("metadata.nmaespace", "a")))
    assert "did you mean namespace?" in problem


def test_a_key_set_twice():
    text = yaml.safe_dump(MINIMAL) + "metadata: {name: other}\n"
    (problem,) = problems_of(text)
    assert problem.startswith("metadata: the key is set twice, on lines ")


def test_every_problem_at_once():
    document = changed("spec.target.dtype", "fp8")
    document["spec"]["rollout"] = {
        "steps": [{"weightPercent": 9}, {"weightPercent": 8}, {"weightPercent": 8}]
    }
    document["spec"]["replica"] = 1
    document["metadata"] = {}
    assert [problem.split(":")[0] for problem in problems_of(yaml.safe_dump(document))] == [
        "metadata.name",
        "spec.target.dtype",
        "spec.rollout.steps[1].weightPercent",
        "spec.rollout.steps[2].weightPercent",
        "spec.replica",
    ]


def test_a_password_is_never_shown():
    text = yaml.safe_dump(changed("spec.buffer", {"external": {"url": "http://u:secret@h"}}))
    assert "secret" not in "".join(problems_of(text))


STORED = {
    **MINIMAL,
    "metadata": {
        "name": "chat",
        "namespace": "serving",
        "uid": "d290f1ee",
        "resourceVersion": "7",
        "generation": 3,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": [{"manager": "kubectl"}],
        "annotations": {"aurora.dev/command": "abort/chat-1"},
    },
    "status": {"replicas": 1},
}


def test_a_stored_object_is_read_without_what_the_server_added():
    deployment = deployment_from_object(STORED)
    assert deployment.metadata.namespace == "serving"
    assert deployment.metadata.annotations == {"aurora.dev/command": "abort/chat-1"}
    assert deployment.spec == parse_manifest(yaml.safe_dump(MINIMAL), "test.yaml").spec


def test_a_stored_object_that_another_schema_let_in_is_refused_in_the_same_words():
    with pytest.raises(ManifestError) as caught:
        deployment_from_object({**STORED, **changed("spec.replicas", -1), "status": {}})
    assert caught.value.problems == ("spec.replicas: -1 is not allowed; it must be at least 0",)
