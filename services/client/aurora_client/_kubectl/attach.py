"""What a vLLM's pods lack for a gateway in front of them, and the patch that adds it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aurora_client._cli.run import CommandError

Json = dict[str, Any]

_PLUGIN, _PLUGIN_FOLDER = "aurora-plugin", "/aurora"
_CLAIMS = "/claims"
_STORE = "AURORA_VLLM_STORE"
_FLAGS = {
    "--worker-extension-cls": "aurora_vllm.worker.AuroraWorker",
    "--per-request-spec-decode-metrics": "detailed",
}
_SPECULATION = ("--speculative-config", "-sc")
_METHODS = ("draft_model", "eagle", "eagle3")
_LEAST_MINOR = 32
_VERSION = re.compile(r":v?0\.(\d+)")


@dataclass(frozen=True, slots=True)
class Attachment:
    """What is to be attached: `claim` holds the checkpoints, `secret` and `key` vLLM's API key."""

    selector: str
    port: int
    claim: str
    secret: str
    key: str
    image: str


@dataclass(frozen=True, slots=True)
class Container:
    """The container of a pod in which vLLM runs, as its manifest describes it."""

    body: Mapping[str, Any]
    pod: Mapping[str, Any]

    @property
    def words(self) -> list[str]:
        """Its command line; what a shell is given counts as words of their own."""
        given = [*self.body.get("command", ()), *self.body.get("args", ())]
        return [word for text in given for word in _split(text)]

    @property
    def environment(self) -> dict[str, str | None]:
        """Variables by name; None for a value that is elsewhere, as in a Secret."""
        return {each["name"]: each.get("value") for each in self.body.get("env", ())}

    def flag(self, *names: str) -> str | None:
        """A flag's value, None without it."""
        words = self.words
        for at, word in enumerate(words):
            name, equals, value = word.partition("=")
            if name.replace("_", "-") in names:
                return value if equals else next(iter(words[at + 1 : at + 2]), "")
        return None

    def mounts(self, claim: str) -> set[str]:
        """The paths at which it sees a claim as a whole."""
        volumes = {
            volume["name"]
            for volume in self.pod["spec"].get("volumes", ())
            if volume.get("persistentVolumeClaim", {}).get("claimName") == claim
        }
        return {
            mount["mountPath"]
            for mount in self.body.get("volumeMounts", ())
            if mount["name"] in volumes and not mount.get("subPath")
        }


def attachment_of(deployment: Json, image: str) -> Attachment:
    """What an AuroraDeployment is attached to; raises CommandError if to nothing."""
    spec = deployment["spec"]
    attach = spec.get("engine", {}).get("attach")
    if attach is None:
        name = deployment["metadata"]["name"]
        raise CommandError(f"{name} is attached to no vLLM: it has no spec.engine.attach")
    return Attachment(
        selector=",".join(f"{key}={value}" for key, value in sorted(attach["selector"].items())),
        port=attach["port"],
        claim=spec["modelStore"]["pvc"]["claimName"],
        secret=attach["keySecretRef"]["name"],
        key=attach["keySecretRef"]["key"],
        image=spec.get("inference", {}).get("image") or image,
    )


def container_of(pod: Mapping[str, Any], port: int) -> Container:
    """The container with that port, else one with vLLM's image, else the first."""
    found: Sequence[Mapping[str, Any]] = pod["spec"]["containers"]

    def rank(body: Mapping[str, Any]) -> tuple[bool, bool]:
        ports = [each.get("containerPort") for each in body.get("ports", ())]
        return port in ports, "vllm" in body.get("image", "")

    return Container(max(found, key=rank), pod)


def missing(container: Container, attachment: Attachment) -> list[str]:
    """What keeps the container's vLLM from being attached, with what to do; empty if nothing."""
    return [*_of_vllm(container), *_of_environment(container), *_of_claim(container, attachment)]


def _of_vllm(container: Container) -> Iterator[str]:
    version = _VERSION.search(container.body.get("image", ""))
    if version and int(version[1]) < _LEAST_MINOR:
        yield f"image {container.body['image']}: the plugin needs vLLM 0.{_LEAST_MINOR} or later"
    for flag, wanted in _FLAGS.items():
        found = container.flag(flag)
        if found != wanted:
            yield f"{flag} {wanted}" + (f", not {found}" if found else "")
    speculation = container.flag(*_SPECULATION)
    if speculation is None:
        yield "--speculative-config: without a draft there is nothing to keep learning"
    elif (method := _method(speculation)) not in _METHODS:
        yield f"--speculative-config with method {', '.join(_METHODS)}, not {method}"
    if (container.flag("--data-parallel-size", "-dp") or "1") != "1":
        yield "no --data-parallel-size: data parallelism is not supported"


def _of_environment(container: Container) -> Iterator[str]:
    found = container.environment
    if not container.flag("--api-key") and "VLLM_API_KEY" not in found:
        yield "--api-key or VLLM_API_KEY: without a key, the plugin's routes answer 403"
    plugins = found.get("VLLM_PLUGINS", "")
    if plugins is not None and "aurora" not in plugins.split(","):
        value = f"{plugins},aurora" if plugins else "aurora"
        yield f"VLLM_PLUGINS={value}: vLLM adds routes only of plugins named there"
    if found.get("VLLM_USE_V2_MODEL_RUNNER", "") not in ("0", None):
        yield "VLLM_USE_V2_MODEL_RUNNER=0: the plugin works with the V1 model runner"
    if _STORE not in found:
        yield f"{_STORE}={_CLAIMS}: checkpoints are taken from there only"
    # Whether an image has the plugin installed, its manifest does not say.
    is_added = any(each["name"] == _PLUGIN for each in container.pod["spec"].get("volumes", ()))
    if not is_added and "PYTHONPATH" not in found and "aurora" not in container.body["image"]:
        yield f"the plugin, by PYTHONPATH={_PLUGIN_FOLDER} from an init container, or in the image"


def _of_claim(container: Container, attachment: Attachment) -> Iterator[str]:
    wanted = f"{_CLAIMS}/{attachment.claim}"
    if wanted not in container.mounts(attachment.claim):
        yield f"the claim {attachment.claim}, mounted at {wanted}, where its gateway has it"


def patch(container: Container, attachment: Attachment) -> Json:
    """A strategic merge patch for the workload that makes the pod."""
    found = container.environment
    plugins = found.get("VLLM_PLUGINS") or ""
    names = [*(name for name in plugins.split(",") if name not in ("", "aurora")), "aurora"]
    path = [_PLUGIN_FOLDER, *(found.get("PYTHONPATH") or "").split(":")]
    environment: list[Json] = [
        {"name": "PYTHONPATH", "value": ":".join(dict.fromkeys(each for each in path if each))},
        {"name": "VLLM_PLUGINS", "value": ",".join(names)},
        {"name": "VLLM_USE_V2_MODEL_RUNNER", "value": "0"},
        {"name": _STORE, "value": _CLAIMS},
    ]
    if not container.flag("--api-key"):
        source = {"secretKeyRef": {"name": attachment.secret, "key": attachment.key}}
        environment.append({"name": "VLLM_API_KEY", "valueFrom": source})
    plugin = {"name": _PLUGIN, "mountPath": _PLUGIN_FOLDER}
    claim = {
        "name": "aurora-claim",
        "mountPath": f"{_CLAIMS}/{attachment.claim}",
        "readOnly": True,
    }
    added = [
        word
        for flag, value in _FLAGS.items()
        if container.flag(flag) != value
        for word in (flag, value)
    ]
    changed: Json = {
        "name": container.body["name"],
        "env": environment,
        "volumeMounts": [plugin, claim],
        # A gateway follows its engine: it needs a moment to notice that this one is ending.
        "lifecycle": {"preStop": {"sleep": {"seconds": 15}}},
    }
    if added:
        # A list that has no keys is replaced as a whole.
        changed["args"] = [*container.body.get("args", ()), *added]
    volume = {"persistentVolumeClaim": {"claimName": attachment.claim, "readOnly": True}}
    pod = {
        "initContainers": [
            {
                "name": _PLUGIN,
                "image": attachment.image,
                "command": ["python", "-m", "aurora_vllm", "folder", _PLUGIN_FOLDER],
                "volumeMounts": [plugin],
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
        "containers": [changed],
        "volumes": [
            {"name": _PLUGIN, "emptyDir": {}},
            {"name": "aurora-claim", **volume},
        ],
    }
    return {"spec": {"template": {"spec": pod}}}


def _method(speculation: str) -> str:
    try:
        found = json.loads(speculation)
    except ValueError:
        return "what is no JSON"
    method = found.get("method") if isinstance(found, dict) else None
    # vLLM infers it from the draft.
    return "draft_model" if method is None else str(method)


def _split(text: str) -> list[str]:
    """The words of a script for a shell; an argument is one word."""
    if "--" not in text or " " not in text or text.startswith("--"):
        return [text]
    try:
        return shlex.split(text, comments=True)
    except ValueError:
        return text.split()
