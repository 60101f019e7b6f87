"""The decoder computes what transformers' own implementations compute."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from aurora_model.config import DecoderConfig
from aurora_model.decoder import Decoder, causal_attend
from aurora_model.rope import DefaultRope, LinearRope, Llama3Rope, RopeConfig, YarnRope
from aurora_model.weights import load_decoder, save_decoder

TOLERANCE = 1e-4
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("llama", {}),
        ("llama", {"num_key_value_heads": 6, "head_dim": 10}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"tie_word_embeddings": True, "rope_parameters": LLAMA3}),
        ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}),
        ("mistral", {"head_dim": 16, "num_key_value_heads": 1}),
        ("mistral", {"sliding_window": 64, "rope_parameters": YARN}),
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen2", {"rope_parameters": YARN | {"attention_factor": 1.7, "truncate": False}}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}),
        ("qwen3", {"head_dim": 16}),
        ("qwen3", {"attention_bias": True, "tie_word_embeddings": True}),
        (
            "qwen3",
            {"head_dim": 8, "rope_parameters": YARN | {"mscale": 0.7, "mscale_all_dim": 1.3}},
        ),
        ("qwen3", {"rope_parameters": YARN | {"beta_fast": 8.0, "beta_slow": 2.0}}),
    ],
)
def test_logits_equal_transformers(models, tmp_path: Path, family, config, attention):
    reference = models.reference(family, **config)
    reference.set_attn_implementation(attention)
    reference.save_pretrained(tmp_path)

    decoder = load_decoder(tmp_path, dtype=torch.float32)

    expected = models.reference_logits(reference, models.tokens())
    assert expected.abs().max() > 1
    assert (models.logits(decoder, models.tokens()) - expected).abs().max() <= TOLERANCE


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_bfloat16_is_as_near_to_float32_as_transformers_is(models, tmp_path: Path, family):
    reference = models.reference(family, head_dim=16)
    exact = models.reference_logits(reference, models.tokens())
    reference.to(torch.bfloat16).save_pretrained(tmp_path)

    decoder = load_decoder(tmp_path, dtype=torch.bfloat16)
    logits = models.logits(decoder, models.tokens())

    assert logits.dtype == torch.bfloat16
    theirs = models.reference_logits(reference, models.tokens()).float() - exact
    ours = logits.float() - exact
    assert ours.pow(2).mean() <= 1.1 * theirs.pow(2).mean()


ropes: st.SearchStrategy[RopeConfig] = st.one_of(
    st.builds(DefaultRope, st.sampled_from([1e4, 5e5])),
    st.builds(LinearRope, st.just(1e4), st.sampled_from([1.0, 2.5])),
    st.builds(
        Llama3Rope,
        st.sampled_from([1e4, 5e5]),
        st.sampled_from([2.0, 8.0]),
        st.just(1.0),
        st.sampled_from([2.0, 4.0]),
        st.sampled_from([8, 32]),
    ),
    st.builds(
        YarnRope,
        st.sampled_from([1e4, 1e6]),
        st.sampled_from([1.0, 4.0]),
        st.sampled_from([8, 32]),
        attention_factor=st.sampled_from([None, 0.8]),
        truncate=st.booleans(),
    ),
)


@st.composite
def decoder_configs(draw: st.DrawFn) -> DecoderConfig:
    family = draw(st.sampled_from(["llama", "mistral", "qwen2", "qwen3"]))
    kv_heads = draw(st.integers(1, 3))
    heads = kv_heads * draw(st.integers(1, 3))
    return DecoderConfig(
        family=family,
        vocab_size=draw(st.integers(2, 70)),
        hidden_size=heads * draw(st.integers(2, 9)),
        intermediate_size=draw(st.integers(1, 40)),
        num_layers=draw(st.integers(1, 3)),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=2 * draw(st.integers(3, 10)),
        max_position_embeddings=draw(st.integers(32, 48)),
        rope=draw(ropes),
        rms_norm_eps=draw(st.sampled_from([1e-6, 1e-5])),
        tie_word_embeddings=draw(st.booleans()),
        attention_bias=family in ("llama", "qwen3") and draw(st.booleans()),
        mlp_bias=family == "llama" and draw(st.booleans()),
    )


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(config=decoder_configs())
def test_saved_decoders_compute_the_same_in_transformers(
    models, tmp_path_factory: pytest.TempPathFactory, config: DecoderConfig
):
    decoder = Decoder(config)
    models.scatter(decoder)
    folder = tmp_path_factory.mktemp("saved")
    tokens = models.tokens(length=32) % config.vocab_size

    save_decoder(decoder, folder)

    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    again = load_decoder(folder, dtype=torch.float32)
    expected = models.reference_logits(theirs, tokens)
    assert again.config == config
    assert (models.logits(decoder, tokens) - expected).abs().max() <= TOLERANCE
    assert torch.equal(models.logits(again, tokens), models.logits(decoder, tokens))


class RaggedCache:
    """The plainest cache: each row's keys and values, as long as its own text."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths
        self.rows: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        attended = []
        for row, length in enumerate(self.lengths):
            keys, values = key[row], value[row]
            if (layer, row) in self.rows:
                past_keys, past_values = self.rows[layer, row]
                keys = torch.cat((past_keys[:, :length], keys), dim=1)
                values = torch.cat((past_values[:, :length], values), dim=1)
            self.rows[layer, row] = keys, values
            count = query.shape[2]
            visible = torch.arange(keys.shape[1]) <= length + torch.arange(count).unsqueeze(1)
            attended.append(
                F.scaled_dot_product_attention(
                    query[row], keys, values, attn_mask=visible, enable_gqa=True
                )
            )
        return torch.stack(attended)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_decoding_with_a_ragged_cache_equals_the_full_forward(models, tmp_path: Path, family):
    models.reference(family, rope_parameters=YARN).save_pretrained(tmp_path)
    decoder = load_decoder(tmp_path, dtype=torch.float32)
    tokens = models.tokens(batch=3, length=40)
    full = models.logits(decoder, tokens)
    cache = RaggedCache([0, 0, 0])

    with torch.inference_mode():
        # Steps of several widths; rows advance by different counts, as after rejections.
        for width, advances in ((12, (12, 7, 3)), (5, (2, 5, 4)), (1, (1, 1, 1)), (8, (8, 1, 5))):
            starts = torch.tensor(cache.lengths).unsqueeze(1)
            positions = starts + torch.arange(width)
            fed = tokens.gather(1, positions)
            logits = decoder.logits(decoder(fed, positions, cache))
            expected = full.gather(1, positions.unsqueeze(-1).expand_as(logits))
            assert (logits - expected).abs().max() <= TOLERANCE
            cache.lengths = [
                length + advance for length, advance in zip(cache.lengths, advances, strict=True)
            ]


def test_tied_embeddings_share_one_parameter(models, tmp_path: Path):
    models.reference("llama", tie_word_embeddings=True).save_pretrained(tmp_path)

    decoder = load_decoder(tmp_path, dtype=torch.bfloat16)

    assert decoder.lm_head.weight is decoder.embed_tokens.weight
    assert copy.deepcopy(decoder).float().lm_head.weight.dtype == torch.float32
    assert "lm_head.weight" not in dict(decoder.named_parameters())


def test_linear_layers_can_be_replaced(models, config: DecoderConfig):
    class Doubling(torch.nn.Module):
        def __init__(self, linear: torch.nn.Linear) -> None:
            super().__init__()
            self.packed = (linear.weight.detach().clone(), linear.bias)

        def forward(self, states: Tensor) -> Tensor:
            return F.linear(states, *self.packed)

    decoder = Decoder(config)
    expected = models.logits(decoder, models.tokens())
    for parent in list(decoder.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, torch.nn.Linear):
                setattr(parent, name, Doubling(child))

    assert torch.equal(models.logits(decoder, models.tokens()), expected)


def test_rotary_frequencies_stay_float32_when_the_model_is_cast(config: DecoderConfig):
    decoder = Decoder(config)
    frequencies = decoder.rotary.frequencies.clone()

    decoder.to(torch.bfloat16)

    assert decoder.lm_head.weight.dtype == torch.bfloat16
    assert torch.equal(decoder.rotary.frequencies, frequencies)


def test_every_parameter_is_trained(models, tmp_path: Path):
    models.reference("qwen3", attention_bias=True).save_pretrained(tmp_path)
    decoder = load_decoder(tmp_path, dtype=torch.float32)
    tokens = models.tokens()
    positions = torch.arange(tokens.shape[1]).expand(tokens.shape)

    decoder.logits(decoder(tokens, positions, causal_attend)).logsumexp(-1).sum().backward()

    untouched = [
        name
        for name, parameter in decoder.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    assert untouched == []
