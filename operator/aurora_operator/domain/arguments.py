"""Each component's command line after `python`: the same for a local process and for a pod."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from aurora_operator.domain.certificate import admitted_names, dns_name
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.manifest.spec.engine import Speculative
from aurora_operator.domain.manifest.spec.inference import Inference
from aurora_operator.domain.manifest.spec.trainer import Trainer

# Of every component. Idle threads of a parallel loop sleep instead of spinning: others want the
# cores. PYTHONSAFEPATH: a folder called `operator` in the working directory shadows no module.
ENVIRONMENT: Mapping[str, str] = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
    "PYTHONSAFEPATH": "1",
}


@dataclass(frozen=True, slots=True)
class Places:
    """The folders of a runtime; None if it has none of that sort.

    `claims` holds a folder for each claim in the manifest. `tls` holds the component's ca.crt,
    tls.crt and tls.key. `redis_socket` is the embedded Redis' Unix domain socket.
    `limited`: whether components have the resources of the manifest.
    """

    claims: str
    models: str
    trainer_state: str
    redis_data: str
    redis_socket: str
    tls: str | None = None
    tokens: str | None = None
    redis_ca: str | None = None
    limited: bool = False


@dataclass(frozen=True, slots=True)
class Listening:
    """The addresses that a component listens on, HOST:PORT each; None: not served separately."""

    grpc: str | None = None
    http: str | None = None
    control: str | None = None
    health: str | None = None
    metrics: str | None = None


def redis_arguments(deployment: AuroraDeployment, places: Places) -> tuple[str, ...]:
    """A Redis that only the buffer can reach."""
    embedded = deployment.spec.buffer.embedded
    assert embedded is not None
    flags = {
        "--dir": places.redis_data,
        "--socket": places.redis_socket,
        "--appendfsync": embedded.appendfsync,
        "--max-bytes": deployment.spec.buffer.retained_bytes,
        "--storage-bytes": embedded.storage_bytes,
        "--memory-bytes": int(embedded.memory),
    }
    return ("-m", "aurora_buffer", "redis", *_flags(flags))


def buffer_arguments(
    deployment: AuroraDeployment, places: Places, listening: Listening
) -> tuple[str, ...]:
    """The URL of an external Redis comes by the environment, since it may hold a password."""
    retention = deployment.spec.buffer.retention
    embedded = deployment.spec.buffer.embedded is not None
    flags = {
        "--listen": listening.grpc,
        "--redis-url": f"unix://{quote(places.redis_socket)}" if embedded else None,
        "--max-age-seconds": retention.max_age_seconds,
        "--max-bytes": deployment.spec.buffer.retained_bytes,
        "--redis-ca": places.redis_ca,
        "--redis-dir": places.redis_data if embedded else None,
        **_serving(deployment, places, listening, "buffer"),
    }
    if not embedded:
        # Several deployments may share one Redis.
        metadata = deployment.metadata
        flags["--stream"] = f"aurora:{metadata.namespace}/{metadata.name}:trajectories"
    return ("-m", "aurora_buffer", "serve", *_flags(flags))


def inference_arguments(
    deployment: AuroraDeployment,
    places: Places,
    listening: Listening,
    *,
    buffer: str,
    drain_seconds: int | None = None,
) -> tuple[str, ...]:
    """`buffer`: HOST:PORT. No draft: the operator stages it, so a change never restarts."""
    spec = deployment.spec
    flags = {
        "--target": spec.target.uri,
        "--claims": places.claims,
        "--dtype": spec.target.dtype,
        "--device": _device(places, spec.inference),
        "--model-name": deployment.metadata.name,
        "--http-listen": listening.http,
        "--grpc-listen": listening.grpc,
        "--control-listen": listening.control,
        "--buffer": buffer,
        "--max-speculation-length": spec.draft.speculation_length.max,
        "--max-batch": spec.inference.max_batch,
        "--max-waiting": spec.inference.max_waiting,
        "--max-context-tokens": spec.inference.max_context_tokens,
        "--sample-percent": spec.buffer.privacy.sample_percent,
        "--opt-out-header": spec.buffer.privacy.opt_out_header,
        "--tls": places.tls,
        "--admit": _admitted(deployment, places, "inference"),
        "--tokens": places.tokens,
        "--drain-seconds": drain_seconds,
    }
    # 90 is the flag's default, which needs no restart of what runs already.
    if spec.inference.gpu_memory_percent != 90:
        flags["--gpu-memory-percent"] = spec.inference.gpu_memory_percent
    if spec.inference.generation_config != "auto":
        flags["--generation-config"] = spec.inference.generation_config
    if spec.inference.allowed_origins != ("*",):
        flags["--allowed-origins"] = json.dumps(spec.inference.allowed_origins)
    adaptive = () if spec.draft.speculation_length.adaptive else ("--no-adaptive-speculation",)
    return ("-m", "aurora_inference", *_flags(flags), *adaptive)


def vllm_arguments(
    deployment: AuroraDeployment, verb: str, *, claims: str, folder: str, listen: str
) -> tuple[str, ...]:
    """Prepares `folder` for a vLLM that listens on `listen`; with the verb `run`, runs it too."""
    spec = deployment.spec
    initial = spec.draft.initial_checkpoint
    assert initial is not None
    flags = {
        "--into": folder,
        "--target": spec.target.uri,
        "--draft": initial.uri,
        "--claims": claims,
        "--listen": listen,
        "--model-name": deployment.metadata.name,
        "--dtype": spec.target.dtype,
        "--speculation-length": spec.draft.speculation_length.max,
        "--max-context-tokens": spec.inference.max_context_tokens,
        "--draft-kind": _draft_kind(deployment),
        "--executable": spec.engine.executable if verb == "run" else None,
        "--speculation-per-batch-size": _per_batch_size(spec.engine.speculative),
        "--nodes": spec.engine.nodes if spec.engine.nodes > 1 else None,
    }
    return ("-m", "aurora_inference.vllm", verb, *_flags(flags), "--", *spec.engine.args)


def _device(places: Places, component: Inference | Trainer) -> str | None:
    """None, which is auto, unless the manifest says more: limits are those of pods alone."""
    if component.device is None and places.limited and component.resources.has_gpu:
        return "cuda"
    return component.device


def _draft_kind(deployment: AuroraDeployment) -> str | None:
    """None for the default, so that what runs already need not restart."""
    kind = deployment.spec.draft.kind
    return None if kind == "Standalone" else kind.lower()


def _per_batch_size(speculative: Speculative | None) -> tuple[str, ...]:
    steps = () if speculative is None else speculative.per_batch_size
    return tuple(f"{step.batch_size}:{step.tokens}" for step in steps)


def gateway_arguments(
    deployment: AuroraDeployment,
    places: Places,
    listening: Listening,
    *,
    buffer: str,
    engine: str,
    key: str,
    drain_listen: str | None = None,
    drain_seconds: int | None = None,
) -> tuple[str, ...]:
    """In front of the vLLM at the URL `engine`; `key`: the file that holds its API key."""
    spec = deployment.spec
    flags = {
        "--engine": engine,
        "--engine-key": key,
        "--target": spec.target.uri,
        "--claims": places.claims,
        "--http-listen": listening.http,
        "--control-listen": listening.control,
        "--drain-listen": drain_listen,
        "--buffer": buffer,
        # samplePercent limits the cost of what the trainer cannot do without.
        "--capture-percent": 0 if spec.trainer.targets == "Recompute" else 100,
        "--sample-percent": spec.buffer.privacy.sample_percent,
        "--opt-out-header": spec.buffer.privacy.opt_out_header,
        "--tls": places.tls,
        "--admit": _admitted(deployment, places, "inference"),
        "--tokens": places.tokens,
        "--drain-seconds": drain_seconds,
    }
    attached = ()
    if spec.engine.attach is not None:
        # Its clients have its keys already, unless the manifest gives them others.
        attached = ("--put-back", *(("--pass-authorization",) if places.tokens is None else ()))
    return ("-m", "aurora_inference.gateway", *_flags(flags), *attached)


def trainer_arguments(
    deployment: AuroraDeployment,
    places: Places,
    listening: Listening,
    *,
    buffer: str,
    ranks: str | None = None,
    local_ranks: int | None = None,
) -> tuple[str, ...]:
    """HOST:PORT each; `ranks`: where the other ranks find it, if there are any. `local_ranks`: how
    many run on this machine, if it is theirs."""
    spec, trainer = deployment.spec, deployment.spec.trainer
    initial = spec.draft.initial_checkpoint
    flags = {
        "--listen": listening.grpc,
        "--buffer": buffer,
        "--target": spec.target.uri,
        "--claims": places.claims,
        "--models": places.models,
        "--state": places.trainer_state,
        "--min-new-trajectories": trainer.trigger.min_new_trajectories,
        "--min-interval-seconds": trainer.trigger.min_interval_seconds,
        "--device": _device(places, trainer),
        "--objective": trainer.objective,
        "--optimizer": trainer.optimizer,
        "--learning-rate": trainer.hyperparameters.learning_rate,
        "--batch-size": trainer.hyperparameters.batch_size,
        "--steps-per-round": trainer.hyperparameters.steps_per_round,
        "--holdout-percent": trainer.holdout_percent,
        # None for the default, so that what runs already need not restart.
        "--max-share-percent": None if trainer.budget is None else trainer.budget.max_share_percent,
        "--draft": None if initial is None else initial.uri,
        "--draft-kind": _draft_kind(deployment),
        "--targets": None if trainer.targets == "Recorded" else trainer.targets,
        "--ranks": None if ranks is None else trainer.replicas,
        "--ranks-listen": ranks,
        "--local-ranks": local_ranks,
        **_serving(deployment, places, listening, "trainer"),
    }
    return ("-m", "aurora_trainer", "train", *_flags(flags))


def rank_arguments(
    deployment: AuroraDeployment,
    places: Places,
    *,
    listen: str,
    trainer: str,
    metrics: str | None = None,
    local_ranks: int | None = None,
) -> tuple[str, ...]:
    """A stateless process that shares the trainer's steps, and holds the target if that is what
    they learn from; HOST:PORT each, `trainer` that at which the trainer's ranks meet."""
    recomputes = deployment.spec.trainer.targets == "Recompute"
    flags = {
        "--listen": listen,
        "--trainer": trainer,
        "--target": deployment.spec.target.uri if recomputes else None,
        "--claims": places.claims if recomputes else None,
        "--metrics-listen": metrics,
        "--local-ranks": local_ranks,
    }
    return ("-m", "aurora_trainer", "rank", *_flags(flags))


def _serving(
    deployment: AuroraDeployment, places: Places, listening: Listening, component: str
) -> dict[str, object]:
    return {
        "--tls": places.tls,
        "--admit": _admitted(deployment, places, component),
        "--health-listen": listening.health,
        "--metrics-listen": listening.metrics,
    }


def _name(deployment: AuroraDeployment, places: Places, component: str) -> str | None:
    """The DNS name in a component's certificate; None without TLS."""
    metadata = deployment.metadata
    if places.tls is None:
        return None
    return dns_name(metadata.name, component, namespace=metadata.namespace)


def _admitted(
    deployment: AuroraDeployment, places: Places, component: str
) -> tuple[str, ...] | None:
    """The clients admitted by name; None without TLS, which cannot tell clients apart."""
    return None if places.tls is None else admitted_names(deployment.metadata, component)


def _flags(values: Mapping[str, object]) -> tuple[str, ...]:
    """Flags with their values; a tuple repeats its flag, and None omits it."""
    parts: list[str] = []
    for flag, value in values.items():
        for each in value if isinstance(value, tuple) else (value,):
            if each is not None:
                parts += (flag, str(each))
    return tuple(parts)
