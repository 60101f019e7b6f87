"""The EAGLE-3 head: what it computes, what it writes, and what it refuses."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from aurora_common.errors import AuroraError, CheckpointError
from aurora_model.config import DecoderConfig
from aurora_model.decoder import Decoder, causal_attend, packed_attend
from aurora_model.draft import Eagle3Draft, PackedTokens, load_draft, publish_draft, random_draft
from aurora_model.draft.eagle3_layout import Eagle3Config, Verifier, layer_ids_for
from aurora_model.draft.importing import import_draft
from aurora_model.target import TargetIdentity
from aurora_model.weights import save_decoder

WEIGHTS, CONFIG = "model.safetensors", "config.json"
PROPOSED = 41


@pytest.fixture
def deep(config: DecoderConfig) -> DecoderConfig:
    return replace(config, num_layers=8, initializer_range=0.2)


@pytest.fixture
def decoder(deep: DecoderConfig) -> Decoder:
    return random_draft(deep, seed=5)


@pytest.fixture
def identity(deep: DecoderConfig) -> TargetIdentity:
    return TargetIdentity("sha256:t", "sha256:w", deep.vocab_size, config=deep)


def head(target: Decoder, scatter, **changes) -> Eagle3Draft:
    """A head with every tensor random; `changes`: of its config."""
    start = Eagle3Draft.random(target.config, seed=1).config
    draft = Eagle3Draft(replace(start, **changes))
    scatter(draft)
    if draft.config.is_reduced:
        chosen = torch.randperm(draft.config.vocab_size, generator=torch.Generator().manual_seed(2))
        ids = chosen[: draft.config.draft_vocab_size].sort().values
        draft.d2t.copy_(ids - torch.arange(len(ids)))
    draft.attach(target)
    return draft.eval()


REDUCED = {"draft_vocab_size": PROPOSED, "owns_head": True}
OWNED = {"owns_head": True, "owns_embedding": True}
SPECULATORS = {
    "layout": "speculators",
    "norm_before_residual": True,
    "verifier": Verifier("org/target", ("LlamaForCausalLM",), 5),
}
VARIANTS = [
    {},
    REDUCED,
    OWNED,
    REDUCED | SPECULATORS,
    OWNED | {"layer_ids": (0, 3, 8)},
    SPECULATORS,
]


def reference_logits(folder: Path, tokens: Tensor, states: Tensor, target: Decoder) -> Tensor:
    """[T + 1] tokens and the target's [T, 3 × hidden] -> [T, V], written down from the paper."""
    content = json.loads((folder / CONFIG).read_text())
    config = content.get("transformer_layer_config", content)
    prefix = "layers.0" if "speculators_model_type" in content else "midlayer"
    weights = load_file(folder / WEIGHTS)
    layer = {key.removeprefix(f"{prefix}."): value for key, value in weights.items()}
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    width = config["head_dim"]

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return x / (x.pow(2).mean(-1, keepdim=True) + config["rms_norm_eps"]).sqrt() * weight

    def rotated(x: Tensor) -> Tensor:
        frequencies = config["rope_theta"] ** -(torch.arange(0, width, 2) / width)
        angles = torch.arange(len(x))[:, None, None] * frequencies
        one, other = x.chunk(2, dim=-1)
        return torch.cat(
            (one * angles.cos() - other * angles.sin(), other * angles.cos() + one * angles.sin()),
            dim=-1,
        )

    embedding = weights.get("embed_tokens.weight", target.embed_tokens.weight)
    output = weights.get("lm_head.weight", target.lm_head.weight)
    hidden = states @ weights["fc.weight"].T
    normed = norm(hidden, layer["hidden_norm.weight"])
    residual = normed if content["norm_before_residual"] else hidden
    embedded = norm(embedding[tokens[1:]], layer["input_layernorm.weight"])
    read = torch.cat((embedded, normed), dim=-1)
    query, key, value = (
        (read @ layer[f"self_attn.{name}_proj.weight"].T).unflatten(-1, (-1, width))
        for name in "qkv"
    )
    query, key = rotated(query), rotated(key)
    outputs = []
    for number in range(heads):
        group = number // (heads // kv_heads)
        scores = query[:, number] @ key[:, group].T / width**0.5
        future = torch.ones_like(scores).triu(1).bool()
        outputs.append(scores.masked_fill(future, -torch.inf).softmax(-1) @ value[:, group])
    hidden = residual + torch.cat(outputs, dim=-1) @ layer["self_attn.o_proj.weight"].T
    inner = norm(hidden, layer["post_attention_layernorm.weight"])
    gate = F.silu(inner @ layer["mlp.gate_proj.weight"].T) * (inner @ layer["mlp.up_proj.weight"].T)
    hidden = hidden + gate @ layer["mlp.down_proj.weight"].T
    proposed = norm(hidden, weights["norm.weight"]) @ output.T
    if "d2t" not in weights:
        return proposed
    ids = weights["d2t"] + torch.arange(len(weights["d2t"]))
    return torch.full((len(hidden), config["vocab_size"]), -torch.inf).index_copy(1, ids, proposed)


def over_whole_vocabulary(draft: Eagle3Draft, logits: Tensor) -> Tensor:
    if draft.token_ids is None:
        return logits
    whole = torch.full((len(logits), draft.config.vocab_size), -torch.inf)
    return whole.index_copy(1, draft.token_ids, logits)


@pytest.mark.parametrize("changes", VARIANTS)
@torch.no_grad()
def test_its_logits_are_those_of_a_plain_reference(decoder, identity, models, root, changes):
    draft = head(decoder, models.scatter, **changes)
    folder, _ = publish_draft(draft, root, name="head", target=identity)
    loaded, _ = load_draft(folder, target=identity, dtype=torch.float32)
    loaded.attach(decoder)
    tokens = models.tokens(1, 31)
    positions = torch.arange(30)[None]
    layers = loaded.target_layers(decoder.config)
    _, states = decoder.states(tokens[:, :-1], positions, causal_attend, layers)
    side_by_side = torch.cat(states, dim=-1)

    found = loaded.logits(
        loaded(tokens[:, 1:], loaded.project(side_by_side), positions, causal_attend)
    )

    expected = reference_logits(folder, tokens[0], side_by_side[0], decoder)
    assert expected.isfinite().sum() == 30 * draft.config.draft_vocab_size
    torch.testing.assert_close(over_whole_vocabulary(loaded, found[0]), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("changes", VARIANTS)
def test_what_is_published_is_what_is_loaded(decoder, identity, models, root, changes):
    draft = head(decoder, models.scatter, **changes)
    folder, manifest = publish_draft(draft, root, name="head", target=identity)
    loaded, _ = load_draft(folder, digest=manifest.digest, target=identity, dtype=torch.float32)
    assert manifest.kind == "eagle3"
    assert loaded.config == draft.config
    assert loaded.state_dict().keys() == draft.state_dict().keys()
    for name, tensor in draft.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    again = Eagle3Draft.parse_config(draft.config_content(), source="state")
    assert again == draft.config


def test_what_is_shared_with_the_target_is_neither_trained_nor_copied_nor_written(
    decoder, identity, root
):
    draft = Eagle3Draft.random(decoder.config, seed=3)
    draft.attach(decoder)
    folder, _ = publish_draft(draft, root, name="head", target=identity)
    names = {*load_file(folder / WEIGHTS), *(name for name, _ in draft.named_parameters())}
    assert not any("embed_tokens" in name or "lm_head" in name for name in names)
    assert not {id(each) for each in draft.parameters()} & {id(e) for e in decoder.parameters()}
    twin = copy.deepcopy(draft)
    state = torch.ones(1, draft.config.layer.hidden_size)
    torch.testing.assert_close(twin.logits(state), draft.logits(state), rtol=0, atol=0)


def test_day_0_is_the_same_for_the_same_seed(deep):
    one, other, third = (Eagle3Draft.random(deep, seed) for seed in (1, 1, 2))
    assert torch.equal(one.fc.weight, other.fc.weight)
    assert not torch.equal(one.fc.weight, third.fc.weight)


@pytest.mark.parametrize(
    ("layers", "ids"),
    [
        (2, (0, 1, 2)),
        (3, (0, 2, 3)),
        (4, (2, 3, 4)),
        (6, (4, 5, 6)),
        (7, (2, 3, 4)),
        (32, (2, 16, 29)),
    ],
)
def test_which_states_a_new_head_reads(deep, layers, ids):
    draft = Eagle3Draft.random(replace(deep, num_layers=layers), seed=0)
    assert draft.target_layers(replace(deep, num_layers=layers)) == ids


def test_a_target_of_one_layer_has_too_few_states():
    with pytest.raises(AuroraError, match=r"the target has 1 layer: allowed .* at least 2"):
        layer_ids_for(1)


@torch.no_grad()
def test_unrolling_is_drafting_one_token_after_another_from_every_position(decoder, models):
    draft = head(decoder, models.scatter)
    lengths, outputs, steps = (9, 5, 1, 12), (5, 5, 1, 6), 4
    tokens = torch.cat([models.tokens(1, each) for each in lengths], dim=1)
    positions = torch.cat([torch.arange(each) for each in lengths])[None]
    ends = torch.tensor(lengths).cumsum(0).tolist()
    rows = torch.cat([torch.arange(end - n, end) for end, n in zip(ends, outputs, strict=True)])
    layers = draft.target_layers(decoder.config)
    _, entering = decoder.states(tokens, positions, packed_attend(lengths), layers)
    states = torch.cat(entering, dim=-1)

    found = draft.unrolled(PackedTokens(tokens, positions, lengths, rows), states, steps=steps)

    expected = {}
    for length, end in zip(lengths, ends, strict=True):
        mine, known = tokens[0, end - length : end], draft.project(states[0, end - length : end])
        for seen in range(1, length):
            proposal = known[:seen]
            for step in range(min(steps, length - seen)):
                fed = mine[1 : seen + 1 + step]
                out = draft(fed[None], proposal[None], torch.arange(len(fed))[None], causal_attend)
                expected[end - length + seen + step, step] = out[0, -1]
                proposal = torch.cat((proposal, out[0, -1:]))
    wanted = {key: value for key, value in expected.items() if key[0] in rows.tolist()}
    keys = list(zip(rows[found.rows].tolist(), found.steps.tolist(), strict=True))
    assert sorted(keys) == sorted(wanted)
    assert found.rows.tolist() == sorted(found.rows.tolist())
    for key, state in zip(keys, found.features, strict=True):
        torch.testing.assert_close(state, wanted[key], rtol=1e-4, atol=1e-4)


def edited(folder: Path, **content) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | content))


def retensored(folder: Path, change) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


@pytest.fixture
def target(tmp_path: Path, decoder: Decoder) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    save_decoder(decoder, folder)
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.fixture
def plain(tmp_path: Path, decoder: Decoder, models) -> Path:
    """A head as it comes from the hub, with a reduced vocabulary."""
    folder = tmp_path / "hub"
    folder.mkdir()
    head(decoder, models.scatter, **REDUCED).save(folder)
    return folder


def test_a_head_without_a_tokenizer_is_imported(plain, target, tmp_path):
    _, manifest = import_draft(plain, tmp_path / "out", target=target)
    assert manifest.kind == "eagle3"


@pytest.mark.parametrize("ids", [None, [2, 4, 5]])
def test_layers_counted_by_their_outputs_are_understood(plain, deep, ids):
    shifted = None if ids is None else [each - 1 for each in ids]
    edited(plain, eagle_config={"eagle_aux_hidden_state_layer_ids": shifted})
    assert Eagle3Draft.read_config(plain).states_of(deep.num_layers) == (2, 4, 5)


REFUSALS = [
    ({"eagle_aux_hidden_state_layer_ids": [2, 4, 9]}, r"layers \[2, 4, 9\]: .* from 0 to 8"),
    ({"eagle_aux_hidden_state_layer_ids": [5, 4, 2]}, r"\[5, 4, 2\]: allowed are 3 .* ascending"),
    ({"eagle_aux_hidden_state_layer_ids": [2, 4]}, r"\[2, 4\]: allowed are 3 different layers"),
    ({"architectures": ["EagleLlamaForCausalLM"]}, r"architectures is \['EagleLlamaForCausalLM'\]"),
    ({"speculators_model_type": "dflash"}, "speculators_model_type is 'dflash': .* eagle3"),
    ({"norm_before_fc": True}, "norm_before_fc is True: allowed is False"),
    ({"num_hidden_layers": 2}, "num_hidden_layers is 2: allowed is 1"),
    ({"draft_vocab_size": 98}, "draft_vocab_size is 98: allowed is at most vocab_size, 97"),
    ({"draft_vocab_size": 40}, r"lm_head.weight \[41, 32\], not \[40, 32\]"),
    ({"vocab_size": 96}, "t2d"),
    ({"model_type": "qwen3"}, "model_type is 'qwen3': allowed is one of llama"),
]


@pytest.mark.parametrize(("content", "reason"), REFUSALS)
def test_a_config_that_does_not_fit_is_refused(plain, target, tmp_path, content, reason):
    edited(plain, **content)
    with pytest.raises(CheckpointError, match=reason) as error:
        import_draft(plain, tmp_path / "out", target=target)
    assert str(plain) in str(error.value)


def without(name):
    return lambda tensors: tensors.pop(name)


def changed(name, change):
    return lambda tensors: tensors.update({name: change(tensors[name].clone())})


def with_nan(tensor: Tensor) -> Tensor:
    return tensor.fill_(torch.nan)


def eagle_1(tensors: dict[str, Tensor]) -> None:
    tensors["fc.weight"] = torch.zeros(32, 64)


BROKEN = [
    (without("midlayer.hidden_norm.weight"), "missing: midlayer.hidden_norm.weight"),
    (without("d2t"), "missing: d2t"),
    (
        without("lm_head.weight"),
        "no output layer of its own, and the target's takes 32 values to 97",
    ),
    (changed("d2t", lambda d2t: d2t + 60), "d2t .* leads to the tokens .* allowed is 0 to 96"),
    (changed("d2t", lambda d2t: -torch.arange(len(d2t))), "leads to one token twice"),
    (changed("t2d", torch.logical_not), "d2t and t2d .* do not name the same tokens"),
    (changed("norm.weight", with_nan), "not finite: norm.weight"),
]


@pytest.mark.parametrize(("change", "reason"), BROKEN)
def test_tensors_that_do_not_fit_are_refused(plain, target, tmp_path, change, reason):
    retensored(plain, change)
    with pytest.raises(CheckpointError, match=reason):
        import_draft(plain, tmp_path / "out", target=target)


def test_an_eagle_1_head_is_refused_as_such(plain, target, tmp_path):
    retensored(plain, eagle_1)
    edited(plain, architectures=["LlamaForCausalLM"])
    with pytest.raises(CheckpointError, match="those of an EAGLE-1 or EAGLE-2 head"):
        import_draft(plain, tmp_path / "out", target=target)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"hidden_size": 48}, "hidden states of 32 values: the target's have 48"),
        ({"vocab_size": 90}, "97.* the target's, 90"),
        ({"num_layers": 6}, r"layers \[2, 3, 3\]: allowed are three different"),
    ],
)
def test_a_head_for_another_target_is_refused(decoder, identity, models, root, shape, reason):
    draft = head(decoder, models.scatter)
    other = replace(identity, config=replace(decoder.config, **shape))
    with pytest.raises(CheckpointError, match=reason):
        publish_draft(draft, root, name="head", target=other)
    folder, _ = publish_draft(draft, root, name="head", target=identity)
    with pytest.raises(CheckpointError, match=reason):
        load_draft(folder, target=other, dtype=torch.float32)


def test_a_narrower_head_cannot_share_the_targets_embedding(decoder, identity, root):
    layer = replace(decoder.config, num_layers=1, hidden_size=16, num_heads=2, num_kv_heads=2)
    narrow = Eagle3Config(layer, 97, target_hidden_size=32, owns_head=True)
    with pytest.raises(
        CheckpointError, match=r"no embedding of its own, .* 32 values a token, not 16"
    ):
        publish_draft(Eagle3Draft(narrow), root, name="head", target=identity)
