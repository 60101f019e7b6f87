"""EAGLE-3 heads, which share embeddings and output layer with the target, are switched as well."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from stock.server import Server, gathered, serving

from aurora_common.checkpoint import CheckpointManifest, folder_digest

_LAYERS = [0, 1, 2]


@dataclass(frozen=True)
class Heads:
    """`other` has another layer than `start`, `foreign` another output layer too."""

    server: Server
    start: CheckpointManifest
    other: CheckpointManifest
    foreign: CheckpointManifest


def head(target: Path, store: Path, name: str, *, seed: int, foreign: bool) -> CheckpointManifest:
    """Writes a random head for the target; its output layer is the target's unless foreign."""
    config = json.loads((target / "config.json").read_text())
    torch.manual_seed(seed)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head_size = hidden // config["num_attention_heads"]
    keys = head_size * config["num_key_value_heads"]
    shapes = {
        "midlayer.self_attn.q_proj": (hidden, 2 * hidden),
        "midlayer.self_attn.k_proj": (keys, 2 * hidden),
        "midlayer.self_attn.v_proj": (keys, 2 * hidden),
        "midlayer.self_attn.o_proj": (hidden, hidden),
        "midlayer.mlp.gate_proj": (inner, hidden),
        "midlayer.mlp.up_proj": (inner, hidden),
        "midlayer.mlp.down_proj": (hidden, inner),
        "fc": (hidden, len(_LAYERS) * hidden),
    }
    tensors = {f"{key}.weight": torch.randn(shape) * 0.1 for key, shape in shapes.items()}
    for key in ("input_layernorm", "hidden_norm", "post_attention_layernorm"):
        tensors[f"midlayer.{key}.weight"] = torch.ones(hidden)
    tensors["norm.weight"] = torch.ones(hidden)
    output = load_file(target / "model.safetensors")["lm_head.weight"]
    tensors["lm_head.weight"] = torch.randn_like(output) if foreign else output
    folder = store / name
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors")
    content = config | {
        "architectures": ["LlamaForCausalLMEagle3"],
        "num_hidden_layers": 1,
        "draft_vocab_size": config["vocab_size"],
        "eagle_aux_hidden_state_layer_ids": _LAYERS,
    }
    (folder / "config.json").write_text(json.dumps(content))
    digest = folder_digest(folder)
    parent = "" if seed == 0 else folder_digest(store / "start")
    manifest = CheckpointManifest(name, digest, "", "", kind="eagle3", parent_digest=parent)
    (folder / "aurora.json").write_bytes(manifest.to_json())
    return manifest


@pytest.fixture
def eagle3(models, plugin, tmp_path) -> Iterator[Heads]:
    store = tmp_path / "heads"
    start = head(models.target, store, "start", seed=0, foreign=False)
    other = head(models.target, store, "other", seed=1, foreign=False)
    foreign = head(models.target, store, "foreign", seed=1, foreign=True)
    with serving(
        target=models.target,
        draft=store / "start",
        store=store,
        python_path=[plugin],
        log=tmp_path / "vllm.txt",
        method="eagle3",
    ) as server:
        yield Heads(server, start, other, foreign)


async def test_heads_are_switched_and_the_target_stays_as_it_is(eagle3, plain):
    async def drafted(client, name: str) -> bytes:
        """What the live head drafts for one prompt, in an attention cache of its own."""
        keyed = {"aurora_key": name, "aurora_capture": 1}
        await client.complete(plain.prompts[0], 32, vllm_xargs=keyed, cache_salt=name)
        for _ in range(20):
            header, body = await client.capture()
            if header["requests"]:
                break
        [request] = header["requests"]
        await client.capture(ack=header["batch"])
        return body[-4 * sum(drafted for drafted, _ in request["steps"]) :]

    async with eagle3.server.client() as client:
        first = await drafted(client, "first")
        await client.stage(eagle3.other)
        await client.ok("activate", digest=eagle3.other.digest)
        outputs = await gathered(*(client.complete(prompt, 96) for prompt in plain.prompts))
        other = await drafted(client, "other")
        await client.ok("activate", digest=eagle3.start.digest)
        again = await drafted(client, "again")
        await client.ok("unstage", digest=eagle3.other.digest)
        status, answer = await client.call(
            "stage", digest=eagle3.foreign.digest, name="foreign", path="foreign"
        )
        after = await gathered(*(client.complete(prompt, 96) for prompt in plain.prompts))

    expected = [output[:96] for output in plain.outputs]
    assert [completion.tokens for completion in outputs] == expected
    assert [completion.tokens for completion in after] == expected
    assert first == again != other
    assert (status, answer["error"]["code"]) == (400, "bad_checkpoint")
    assert "lm_head.weight differs from the target's" in answer["error"]["message"]
