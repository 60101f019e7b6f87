"""What is no checkpoint for the engine is refused, and nothing changes."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from stock.server import gathered

from aurora_common.checkpoint import CheckpointManifest, folder_digest

WEIGHTS = "model.safetensors"
TENSOR = "model.layers.0.self_attn.k_proj.weight"


def altered(models, name: str, alter) -> CheckpointManifest:
    """The cousin with altered files, of which digest and manifest are right."""
    folder = models.store / name
    shutil.copytree(models.folder(models.cousin), folder)
    alter(folder)
    manifest = replace(models.cousin, name=name, digest=folder_digest(folder))
    (folder / "aurora.json").write_bytes(manifest.to_json())
    return manifest


def weights(change):
    def alter(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return alter


def config(**change):
    def alter(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(content | change))

    return alter


def set_nan(tensors) -> None:
    tensors[TENSOR][3, 5] = float("nan")


def cut(tensors) -> None:
    tensors[TENSOR] = tensors[TENSOR][:-1].clone()


def add(tensors) -> None:
    tensors["model.layers.1.surplus.weight"] = torch.zeros(2)


def to_integers(tensors) -> None:
    tensors[TENSOR] = tensors[TENSOR].to(torch.int32)


def truncate(folder: Path) -> None:
    os.truncate(folder / WEIGHTS, 4096)


UNFIT = {
    "nan": (weights(set_nan), f"not finite: {TENSOR}"),
    "shape": (weights(cut), TENSOR),
    "missing": (weights(lambda tensors: tensors.pop(TENSOR)), f"missing: {TENSOR}"),
    "surplus": (weights(add), "unexpected: model.layers.1.surplus.weight"),
    "dtype": (weights(to_integers), f"{TENSOR} is int32"),
    "truncated": (truncate, WEIGHTS),
    "empty": (lambda folder: (folder / WEIGHTS).unlink(), "no .safetensors file"),
    "rope": (config(rope_theta=77.0, rope_parameters=None), "config.json"),
    "heads": (config(num_attention_heads=4), "num_attention_heads is 4, not 2"),
    "not-json": (lambda folder: (folder / "config.json").write_text("{"), "not JSON"),
    "fifo": (lambda folder: os.mkfifo(folder / "notes.txt"), "notes.txt is not a regular file"),
    "folder": (lambda folder: (folder / "more").mkdir(), "more is not a regular file"),
    "link": (lambda folder: (folder / "passwd").symlink_to("/etc/passwd"), "passwd leads out"),
}


@pytest.mark.parametrize("name", UNFIT)
async def test_an_unfit_checkpoint_changes_nothing(vllm, models, plain, name):
    alter, reason = UNFIT[name]
    draft = altered(models, f"unfit-{name}", alter)

    async with vllm.client() as client:
        await client.only(models.twin)
        (status, answer), *streams = await gathered(
            client.call("stage", digest=draft.digest, name=draft.name, path=draft.name),
            *(client.complete(plain.prompts[number], 48) for number in range(4)),
        )
        after = await client.ok("status")

    assert (status, answer["error"]["code"]) == (400, "bad_checkpoint")
    assert reason in answer["error"]["message"]
    assert after["live"]["digest"] == models.twin.digest
    assert after["staged"] == []
    assert [stream.tokens for stream in streams] == [output[:48] for output in plain.outputs[:4]]


@pytest.mark.parametrize("path", ["..", ".", "/etc", "../target", "link-out"])
async def test_a_path_outside_the_store_is_refused(vllm, models, path):
    link = models.store / "link-out"
    if not link.is_symlink():
        link.symlink_to(models.target)
    async with vllm.client() as client:
        await client.only(models.twin)
        status, answer = await client.call(
            "stage", digest=models.start_digest, name="outside", path=path
        )

    assert (status, answer["error"]["code"]) == (400, "outside_store")


@pytest.mark.parametrize(
    ("digest", "code"), [("sha256:" + "0" * 64, "wrong_digest"), ("md5:0", "bad_digest")]
)
async def test_another_digest_is_refused(vllm, models, digest, code):
    async with vllm.client() as client:
        await client.only(models.twin)
        status, answer = await client.call(
            "stage", digest=digest, name="cousin", path=models.cousin.name
        )

    assert (status, answer["error"]["code"]) == (400, code)
    assert digest in answer["error"]["message"]


async def test_a_manifest_of_other_files_is_refused(vllm, models):
    def alter(folder: Path) -> None:
        pass

    draft = altered(models, "unfit-manifest", alter)
    (models.store / draft.name / "aurora.json").write_bytes(
        replace(draft, digest=models.twin.digest).to_json()
    )
    async with vllm.client() as client:
        await client.only(models.twin)
        status, answer = await client.call(
            "stage", digest=draft.digest, name=draft.name, path=draft.name
        )

    assert (status, answer["error"]["code"]) == (400, "wrong_digest")


async def test_a_digest_that_is_not_staged_cannot_be_activated(vllm, models):
    async with vllm.client() as client:
        await client.only(models.twin)
        status, answer = await client.call("activate", digest="sha256:" + "0" * 64)
        live = (await client.ok("status"))["live"]["digest"]

    assert (status, answer["error"]["code"]) == (404, "not_staged")
    assert live == models.twin.digest
