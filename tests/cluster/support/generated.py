"""Manifests drawn from the resource's schema, obeying its CEL rules."""

import json

from hypothesis import strategies as st

from aurora_operator.domain.crd import definition

_SCHEMA = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
# Fields with rules that no pattern expresses are drawn from valid values.
_OBEYING = {
    "alpha": st.sampled_from(["0.01", "1e-3", "0.4999", "4E-1"]),
    "learningRate": st.sampled_from(["1e-4", "0.999", "5e-1", "0.0001"]),
    "maxAge": st.sampled_from(["24h", "1h30m", "250ms", "87600h", "0.5s"]),
    "watchAfterPromotion": st.sampled_from(["0s", "1h", "90m"]),
    "maxDuration": st.sampled_from(["6h", "90s"]),
    "minInterval": st.sampled_from(["0s", "10m", "1.5h"]),
    "maxBytes": st.sampled_from(["1Gi", "500M", "0.1", "2e9", "7"]),
    "storage": st.sampled_from(["20Gi", "1.5Ti"]),
    "uri": st.sampled_from(["file:///a", "file://localhost/a%20b", "pvc://models", "pvc://m/a/b"]),
    "url": st.sampled_from(["redis://r", "rediss://p@r.example:6379/0", "redis://[::1]:1/2"]),
    "steps": st.lists(st.integers(1, 99), min_size=1, max_size=20, unique=True).map(
        lambda weights: [{"weightPercent": weight} for weight in sorted(weights)]
    ),
    "guardrails": st.sampled_from([[], [{"name": "tpot"}], [{"name": "tpot", "marginBps": 7}]]),
    "spec": st.just({"nodeSelector": {"zone": "a"}}),
    "clientPeers": st.sampled_from(
        [[], [{"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}]]
    ),
    "autoscaling": st.integers(1, 1000).flatmap(
        lambda least: st.fixed_dictionaries(
            {"minReplicas": st.just(least), "maxReplicas": st.integers(least, 1000)}
        )
    ),
    "attach": st.just(
        {"selector": {"app": "vllm"}, "keySecretRef": {"name": "vllm", "key": "key"}}
    ),
    "perBatchSize": st.sampled_from(
        [[], [{"batchSize": 1, "tokens": 4}, {"batchSize": 9, "tokens": 0}]]
    ),
    "args": st.sampled_from([[], ["--seed=7"], ["--tensor-parallel-size", "2"]]),
    "tls": st.sampled_from(
        [{}, {"mode": "Disabled"}, {"mode": "CertManager", "issuerRef": {"name": "ours"}}]
    ),
    "external": st.sampled_from(
        [{"url": "redis://r:1/0"}, {"urlSecretRef": {"name": "redis", "key": "url"}}]
    ),
}
_KEYS = st.from_regex(r"[a-z]{1,8}", fullmatch=True)


def manifests():
    """Valid AuroraDeployments as JSON."""
    return (
        _drawn(_SCHEMA)
        .map(_with_one_redis)
        .map(_with_a_trainer_that_fits)
        .map(_with_traffic_that_is_known)
        .map(_with_what_its_engine_takes)
        .map(_with_replay_in_a_dry_run)
        .map(
            lambda spec: {
                "apiVersion": "aurora.dev/v1alpha1",
                "kind": "AuroraDeployment",
                "metadata": {"name": "chat"},
                "spec": spec,
            }
        )
    )


def _with_one_redis(spec):
    buffer = dict(spec["buffer"])
    if "external" in buffer:
        buffer.pop("embedded", None)
    else:
        buffer.setdefault("embedded", {})
    return json.loads(json.dumps({**spec, "buffer": buffer}))


def _with_a_trainer_that_fits(spec):
    spec = json.loads(json.dumps(spec))
    trainer = spec.get("trainer", {})
    if spec.get("draft", {}).get("kind") == "Eagle3":
        trainer = spec.setdefault("trainer", {})
        trainer["targets"] = "Recompute"
    batch_size = trainer.get("hyperparameters", {}).get("batchSize", 32)
    if trainer.get("replicas", 1) > batch_size:
        spec = {**spec, "trainer": {**trainer, "replicas": batch_size}}
    return spec


def _with_traffic_that_is_known(spec):
    is_shared = spec.get("trainer", {}).get("replicas", 1) > 1
    if is_shared and spec["trainer"].get("device", "").startswith("cuda"):
        spec = {**spec, "trainer": {**spec["trainer"], "device": "cpu"}}
    is_encrypted = spec.get("security", {}).get("tls", {}).get("mode") != "Disabled"
    if is_shared and is_encrypted:
        spec = {**spec, "security": {**spec.get("security", {}), "trainerTraffic": "Plaintext"}}
    return spec


def _with_what_its_engine_takes(spec):
    spec = json.loads(json.dumps(spec))
    engine, rollout = spec.get("engine", {}), spec.get("rollout", {})
    if engine.get("type") != "vllm":
        for field in ("image", "executable", "args", "nodes", "speculative", "attach"):
            engine.pop(field, None)
        if rollout.get("assignment") == "Switchback":
            del rollout["assignment"]
        return spec
    if "attach" in engine:
        for field in ("image", "executable", "args", "resources", "nodes", "speculative"):
            engine.pop(field, None)
        spec.pop("replicas", None)
    draft = spec.setdefault("draft", {})
    draft.setdefault("initialCheckpoint", {"uri": "pvc://models/draft"})
    draft.pop("portfolio", None)
    if draft.get("speculationLength", {}).get("max") == 0:
        draft["speculationLength"]["max"] = 1
    spec.get("inference", {}).pop("autoscaling", None)
    if rollout.get("assignment") == "PerRequest":
        rollout["assignment"] = "Switchback"
    return spec


def _with_replay_in_a_dry_run(spec):
    rollout = spec.get("rollout", {})
    if rollout.get("dryRun"):
        rollout.get("analysis", {}).pop("method", None)
    return spec


def _drawn(schema, name=""):
    if name in _OBEYING:
        return _OBEYING[name]
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return st.integers(0, 99) | st.sampled_from(["1", "500m", "16Gi", "1.5"])
    match schema["type"]:
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(schema["minimum"], schema["maximum"])
        case "string" if "pattern" in schema:
            return st.from_regex(f"(?a:{schema['pattern']})", fullmatch=True).filter(
                lambda text: len(text) <= schema["maxLength"]
            )
        case "string":
            return st.text("abc", min_size=schema.get("minLength", 0), max_size=8)
        case "array":
            return st.lists(_drawn(schema["items"]), max_size=3)
    if "properties" in schema:
        fields = {key: _drawn(field, key) for key, field in schema["properties"].items()}
        required = schema.get("required", ())
        return st.fixed_dictionaries(
            {key: fields[key] for key in fields if key in required},
            optional={key: fields[key] for key in fields if key not in required},
        )
    return st.dictionaries(_KEYS, _drawn(schema["additionalProperties"]), max_size=3)
