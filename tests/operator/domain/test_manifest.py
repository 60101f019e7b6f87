import json

import pytest
import yaml

from aurora_common.errors import ManifestError
from aurora_operator.domain.manifest import parse_manifest

MINIMAL = {
    "apiVersion": "aurora.dev/v1alpha1",
    "kind": "AuroraDeployment",
    "metadata": {"name": "chat"},
    "spec": {
        "target": {"uri": "file:///models/target"},
        "buffer": {"embedded": {}},
        "modelStore": {"pvc": {"claimName": "models"}},
    },
}


def changed(path, value):
    """MINIMAL with the value at a dotted path set, objects on the way made."""
    document = json.loads(json.dumps(MINIMAL))
    *parents, last = path.split(".")
    place = document
    for key in parents:
        place = place.setdefault(key, {})
    place[last] = value
    return document


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
    assert spec.buffer.retention.max_size_bytes == 16 << 30
    assert spec.trainer.hyperparameters.learning_rate == "1e-4"
    assert spec.model_store.keep == 5
    assert [step.weight_percent for step in spec.rollout.steps] == [5, 20, 50]
    assert spec.rollout.analysis.alpha == "0.01"


def test_what_a_manifest_dumps_it_reads():
    deployment = parse_manifest(yaml.safe_dump(MINIMAL), "test.yaml")
    dumped = deployment.model_dump_json(by_alias=True)
    assert parse_manifest(dumped, "dumped") == deployment


GOOD = [
    ("spec.target.uri", "pvc://models/target"),
    ("spec.target.dtype", "float32"),
    ("spec.draft.initialCheckpoint", {"uri": "pvc://models/d", "digest": "sha256:" + "a" * 64}),
    ("spec.draft.speculationLength", {"max": 0, "adaptive": False}),
    ("spec.inference.maxContextTokens", 4096),
    ("spec.buffer", {"external": {"url": "redis://:secret@redis.example:6379/0"}}),
    ("spec.buffer", {"embedded": None, "external": {"url": "rediss://redis/0"}}),
    ("spec.buffer.retention", {"maxAge": "1h30m", "maxBytes": "500M"}),
    ("spec.trainer.suspend", True),
    ("spec.trainer.objective", "ForwardKL"),
    ("spec.trainer.trigger.minInterval", "0s"),
    ("spec.rollout.steps", [{"weightPercent": 1}, {"weightPercent": 99}]),
    ("spec.rollout.analysis.alpha", "1e-3"),
    ("metadata.labels", {"team": "serving"}),
]


@pytest.mark.parametrize(("path", "value"), GOOD)
def test_accepted(path, value):
    parse_manifest(yaml.safe_dump(changed(path, value)), "test.yaml")


# The value set at a path, the path that the problem names, and a part of what it says.
BAD = [
    ("apiVersion", "aurora.dev/v1", "apiVersion", "allowed: aurora.dev/v1alpha1"),
    ("kind", "Deployment", "kind", "allowed: AuroraDeployment"),
    ("kind", None, "kind", "allowed: AuroraDeployment"),
    ("metadata", None, "metadata", "null is not an object"),
    ("metadata.name", "Chat", "metadata.name", "lower-case letters"),
    ("metadata.name", "a" * 41, "metadata.name", "at most 40"),
    ("metadata.name", 7, "metadata.name", 'write it in quotes: "7"'),
    ("metadata.labels", {"a": 1}, "metadata.labels.a", 'write it in quotes: "1"'),
    ("metadata.labels", ["a"], "metadata.labels", "is not an object of strings"),
    ("metadata.lables", {}, "metadata.lables", "did you mean labels?"),
    ("spec", [], "spec", "[] is not an object"),
    ("spec.target", "file:///m", "spec.target", "is not an object"),
    ("spec.target.uri", "hf://Qwen/Qwen3", "spec.target.uri", "use file:///folder or pvc://"),
    ("spec.target.uri", "models/target", "spec.target.uri", "use file:///folder or pvc://"),
    ("spec.target.uri", "file:///", "spec.target.uri", "use file:///folder or pvc://"),
    ("spec.target.uri", None, "spec.target.uri", "null is not a string"),
    ("spec.target.dtype", "fp16", "spec.target.dtype", "allowed: float32, bfloat16"),
    ("spec.engine.type", "vllm", "spec.engine.type", "allowed: native"),
    ("spec.draft.kind", "Eagle3", "spec.draft.kind", "allowed: Standalone"),
    ("spec.draft.initialCheckpoint", {}, "spec.draft.initialCheckpoint.uri", "is required"),
    ("spec.draft.initialCheckpoint", {"uri": "pvc://m/d", "digest": "md5:1"},
     "spec.draft.initialCheckpoint.digest", "64 hexadecimal digits"),
    ("spec.draft.speculationLength", 4, "spec.draft.speculationLength", "4 is not an object"),
    ("spec.draft.speculationLength.max", 17, "spec.draft.speculationLength.max", "at most 16"),
    ("spec.draft.speculationLength.max", -1, "spec.draft.speculationLength.max", "at least 0"),
    ("spec.draft.speculationLength.max", "6", "spec.draft.speculationLength.max", "whole number"),
    ("spec.draft.speculationLength.max", True, "spec.draft.speculationLength.max", "whole number"),
    ("spec.draft.speculationLength.adaptive", "yes", "spec.draft.speculationLength.adaptive",
     "is not true or false"),
    ("spec.inference.maxBatch", 0, "spec.inference.maxBatch", "at least 1"),
    ("spec.inference.maxBatch", 8.5, "spec.inference.maxBatch", "8.5 is not a whole number"),
    ("spec.inference.max_batch", 8, "spec.inference.max_batch", "did you mean maxBatch?"),
    ("spec.inference.maxContextTokens", 1, "spec.inference.maxContextTokens", "at least 2"),
    ("spec.buffer", {}, "spec.buffer", "neither of embedded and external is set"),
    ("spec.buffer", {"embedded": None}, "spec.buffer", "for example embedded: {}"),
    ("spec.buffer", {"embedded": {}, "external": {"url": "redis://r"}}, "spec.buffer",
     "both of embedded and external"),
    ("spec.buffer.embedded", {"appendfsync": "no"}, "spec.buffer.embedded.appendfsync",
     "allowed: everysec, always"),
    ("spec.buffer.embedded", {"size": "1Gi"}, "spec.buffer.embedded.size",
     "known fields: appendfsync, storage, storageClassName"),
    ("spec.buffer", {"external": {"url": "http://u:secret@h"}}, "spec.buffer.external.url",
     "is not a Redis URL"),
    ("spec.buffer.retention.maxAge", "1d", "spec.buffer.retention.maxAge", "is not a duration"),
    ("spec.buffer.retention.maxAge", "0s", "spec.buffer.retention.maxAge", "longer than 0s"),
    ("spec.buffer.retention.maxAge", 24, "spec.buffer.retention.maxAge", 'quotes: "24"'),
    ("spec.buffer.retention.maxBytes", "16GB", "spec.buffer.retention.maxBytes", "quantity"),
    ("spec.buffer.retention.maxBytes", "0", "spec.buffer.retention.maxBytes", "more than 0"),
    ("spec.buffer.privacy.samplePercent", 101, "spec.buffer.privacy.samplePercent", "at most 100"),
    ("spec.buffer.privacy.optOutHeader", "X-No Train", "spec.buffer.privacy.optOutHeader",
     "lower-case HTTP header"),
    ("spec.trainer.suspend", "no-thanks", "spec.trainer.suspend", "is not true or false"),
    ("spec.trainer.objective", "ReverseKL", "spec.trainer.objective", "allowed: ForwardKL, LK"),
    ("spec.trainer.trigger.minNewTrajectories", 0, "spec.trainer.trigger.minNewTrajectories",
     "at least 1"),
    ("spec.trainer.trigger.minInterval", "soon", "spec.trainer.trigger.minInterval", "duration"),
    ("spec.trainer.hyperparameters.learningRate", 0.0001,
     "spec.trainer.hyperparameters.learningRate", "write it in quotes"),
    ("spec.trainer.hyperparameters.learningRate", "fast",
     "spec.trainer.hyperparameters.learningRate", "is not a decimal number"),
    ("spec.trainer.hyperparameters.learningRate", "1",
     "spec.trainer.hyperparameters.learningRate", "between 0 and 1"),
    ("spec.trainer.hyperparameters.batchSize", 0, "spec.trainer.hyperparameters.batchSize",
     "at least 1"),
    ("spec.trainer.holdoutPercent", 51, "spec.trainer.holdoutPercent", "at most 50"),
    ("spec.modelStore", {}, "spec.modelStore.pvc", "is required"),
    ("spec.modelStore.keep", 0, "spec.modelStore.keep", "at least 1"),
    ("spec.modelStore.s3", {}, "spec.modelStore.s3", "known fields: keep, pvc"),
    ("spec.rollout.paused", 1, "spec.rollout.paused", "1 is not true or false"),
    ("spec.rollout.supersede", "Replace", "spec.rollout.supersede", "allowed: QueueLatest"),
    ("spec.rollout.assignment", "InRequest", "spec.rollout.assignment", "allowed: PerRequest"),
    ("spec.rollout.onInconclusive", "Promote", "spec.rollout.onInconclusive", "KeepStable"),
    ("spec.rollout.steps", [], "spec.rollout.steps", "1 to 20"),
    ("spec.rollout.steps", {"weightPercent": 5}, "spec.rollout.steps", "is not a list"),
    ("spec.rollout.steps", [{"weightPercent": 100}], "spec.rollout.steps[0].weightPercent",
     "at most 99"),
    ("spec.rollout.steps", [{"weightPercent": 20}, {"weightPercent": 20}],
     "spec.rollout.steps[1].weightPercent", "20 is not above 20; weights must increase"),
    ("spec.rollout.steps", [{"weightPercent": 20, "weight": 1}], "spec.rollout.steps[0].weight",
     "did you mean weightPercent?"),
    ("spec.rollout.analysis.alpha", "0.5", "spec.rollout.analysis.alpha", "between 0 and 0.5"),
    ("spec.rollout.analysis.alpha", "0", "spec.rollout.analysis.alpha", "between 0 and 0.5"),
    ("spec.rollout.analysis.alpha", 0.01, "spec.rollout.analysis.alpha", 'quotes: "0.01"'),
    ("spec.rollout.analysis.minEffectBps", -1, "spec.rollout.analysis.minEffectBps", "at least 0"),
    ("spec.rollout.analysis.maxDuration", "0s", "spec.rollout.analysis.maxDuration", "longer"),
    ("spec.rollout.analysis.replayGate", True, "spec.rollout.analysis.replayGate", "known fields"),
    ("metadata.name", "7b", "metadata.name", "beginning with a letter"),
    ("spec.replicas", -1, "spec.replicas", "at least 0"),
    ("spec.replicas", "2", "spec.replicas", "whole number"),
    ("spec.target.uri", "pvc://models/../other", "spec.target.uri", "must not contain .."),
    ("spec.target.uri", "pvc://Models/target", "spec.target.uri", "use file:///folder or pvc://"),
    ("spec.inference.image", "IMAGE", "spec.inference.image", "use repository/name:tag"),
    ("spec.inference.resources.limits", {"nvidia.com/gpu": "one"},
     "spec.inference.resources.limits.nvidia.com/gpu", "use a quantity"),
    ("spec.inference.resources.limits", {"cpu": 1.5},
     "spec.inference.resources.limits.cpu", 'quotes: "1.5"'),
    ("spec.inference.resources.limits", {"cpu": -1},
     "spec.inference.resources.limits.cpu", "use a quantity"),
    ("spec.inference.resources.claims", [], "spec.inference.resources.claims", "known fields"),
    ("spec.inference.podTemplate.spec", [], "spec.inference.podTemplate.spec", "not an object"),
    ("spec.inference.podTemplate.status", {}, "spec.inference.podTemplate.status", "known fields"),
    ("spec.inference.autoscaling", {}, "spec.inference.autoscaling.maxReplicas", "is required"),
    ("spec.inference.autoscaling", {"minReplicas": 3, "maxReplicas": 2},
     "spec.inference.autoscaling.maxReplicas", "2 is below minReplicas, which is 3"),
    ("spec.inference.autoscaling", {"maxReplicas": 2, "waitingRequests": 0},
     "spec.inference.autoscaling.waitingRequests", "at least 1"),
    ("spec.buffer.embedded", {"storage": "big"}, "spec.buffer.embedded.storage", "quantity"),
    ("spec.buffer.embedded", {"storageClassName": "Fast"}, "spec.buffer.embedded.storageClassName",
     "use lower-case letters"),
    ("spec.buffer", {"external": {}}, "spec.buffer.external", "neither of url and urlSecretRef"),
    ("spec.buffer",
     {"external": {"url": "redis://r", "urlSecretRef": {"name": "r", "key": "url"}}},
     "spec.buffer.external", "both of url and urlSecretRef"),
    ("spec.buffer", {"external": {"urlSecretRef": {"name": "r"}}},
     "spec.buffer.external.urlSecretRef.key", "is required"),
    ("spec.security.tls.mode", "Off", "spec.security.tls.mode", "allowed: SelfManaged"),
    ("spec.security.tls.mode", "CertManager", "spec.security.tls", "needs issuerRef"),
    ("spec.security.tls.issuerRef", {"name": "ours"}, "spec.security.tls", "takes no issuerRef"),
    ("spec.security.tls", {"mode": "CertManager", "issuerRef": {"name": "o", "kind": "Other"}},
     "spec.security.tls.issuerRef.kind", "allowed: Issuer, ClusterIssuer"),
    ("spec.security.authSecretRef", {}, "spec.security.authSecretRef.name", "is required"),
    ("spec.security.authSecretRef", {"name": "Tokens"}, "spec.security.authSecretRef.name",
     "use lower-case letters"),
    ("spec.replica", 2, "spec.replica", "did you mean replicas?"),
    ("status", {}, "status", "unknown field"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "where", "says"), BAD)
def test_refused(path, value, where, says):
    (problem,) = problems_of(yaml.safe_dump(changed(path, value)))
    assert problem.startswith(f"{where}: ")
    assert says in problem


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no document"),
        ("a: 1\n---\nb: 2\n", "2 documents"),
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
