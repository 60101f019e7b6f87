"""What `kubectl aurora attach` finds in the pods of somebody's vLLM."""

from __future__ import annotations

import copy

import pytest

from aurora_client._cli.run import CommandError
from aurora_client._kubectl.attach import (
    Attachment,
    attachment_of,
    container_of,
    missing,
    patch,
)

ATTACHMENT = Attachment("app=vllm", 8000, "models", "vllm", "api-key", "aurora-inference:1")
PLAIN = {
    "metadata": {"name": "vllm-0"},
    "spec": {
        "containers": [
            {"name": "mesh", "image": "mesh:1"},
            {
                "name": "serve",
                "image": "vllm/vllm-openai:v0.32.0",
                "args": [
                    *("--model", "Qwen/Qwen3-8B"),
                    '--speculative-config={"model": "draft", "num_speculative_tokens": 4}',
                ],
                "ports": [{"containerPort": 8000}],
                "env": [{"name": "VLLM_PLUGINS", "value": "mine"}],
            },
        ]
    },
}
NEEDED = [
    "--worker-extension-cls",
    "--per-request-spec-decode-metrics",
    "VLLM_API_KEY",
    "VLLM_PLUGINS=mine,aurora",
    "VLLM_USE_V2_MODEL_RUNNER=0",
    "AURORA_VLLM_STORE=/claims",
    "PYTHONPATH=/aurora",
    "/claims/models",
]


def found(pod):
    return missing(container_of(pod, 8000), ATTACHMENT)


def merged(pod, changes):
    """The pod as its workload would make it after the patch."""
    pod = copy.deepcopy(pod)
    added = changes["spec"]["template"]["spec"]
    (change,) = added["containers"]
    (mine,) = [each for each in pod["spec"]["containers"] if each["name"] == change["name"]]
    names = {each["name"] for each in change["env"]}
    kept = [each for each in mine["env"] if each["name"] not in names]
    mine |= {**change, "env": kept + change["env"]}
    pod["spec"] |= {"volumes": added["volumes"], "initContainers": added["initContainers"]}
    return pod


def test_everything_that_a_stock_pod_lacks_is_named_once():
    lacking = found(PLAIN)

    assert len(lacking) == len(NEEDED)
    for needed in NEEDED:
        assert len([each for each in lacking if needed in each]) == 1, (needed, lacking)


def test_after_the_patch_nothing_is_missing():
    changes = patch(container_of(PLAIN, 8000), ATTACHMENT)

    assert found(merged(PLAIN, changes)) == []


def test_the_patch_keeps_what_the_owner_set():
    changes = patch(container_of(PLAIN, 8000), ATTACHMENT)
    (container,) = changes["spec"]["template"]["spec"]["containers"]

    assert container["name"] == "serve"
    assert container["args"][:3] == PLAIN["spec"]["containers"][1]["args"]
    assert {"name": "VLLM_PLUGINS", "value": "mine,aurora"} in container["env"]


def with_args(*args):
    pod = copy.deepcopy(PLAIN)
    pod["spec"]["containers"][1]["args"] = list(args)
    return pod


@pytest.mark.parametrize(
    ("pod", "says"),
    [
        (with_args("--model", "m"), "--speculative-config: without a draft"),
        (with_args("-sc", '{"method": "ngram"}'), "not ngram"),
        (with_args("--speculative_config", "{"), "what is no JSON"),
        (with_args("--data-parallel-size=2"), "data parallelism"),
        (with_args("--worker-extension-cls", "mine.Worker"), "not mine.Worker"),
    ],
)
def test_what_the_plugin_does_not_support_is_named(pod, says):
    assert says in "\n".join(found(pod))


def test_an_image_that_is_too_old_is_named():
    pod = copy.deepcopy(PLAIN)
    pod["spec"]["containers"][1]["image"] = "vllm/vllm-openai:v0.11.2"

    assert "image vllm/vllm-openai:v0.11.2: the plugin needs vLLM 0.32 or later" in found(pod)


def test_a_shells_script_is_read_as_words():
    pod = with_args()
    script = (
        "exec vllm serve m --worker-extension-cls aurora_vllm.worker.AuroraWorker "
        '--speculative-config \'{"model": "d"}\''
    )
    pod["spec"]["containers"][1]["command"] = ["/bin/sh", "-c", script]

    lacking = "\n".join(found(pod))
    assert "--worker-extension-cls" not in lacking
    assert "--speculative-config" not in lacking


def test_a_deployment_without_attach_is_no_answer():
    body = {"metadata": {"name": "chat"}, "spec": {"engine": {"type": "vllm"}}}
    with pytest.raises(CommandError, match="chat is attached to no vLLM"):
        attachment_of(body, "aurora-inference:1")
