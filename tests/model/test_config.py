"""What a config.json may say, and how all that is wrong with it is reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from aurora_common.errors import InvalidInputError
from aurora_model.config import DecoderConfig, parse_config, read_config, to_hugging_face
from aurora_model.rope import DefaultRope, LinearRope, Llama3Rope, YarnRope
from aurora_model.rotary import rope_frequencies
from aurora_model.weights import load_decoder

BASE: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "hidden_act": "silu",
}


def family(name: str, **changes: Any) -> dict[str, Any]:
    return {**BASE, "model_type": name, "architectures": None, **changes}


@pytest.mark.parametrize(
    ("content", "rope"),
    [
        ({}, DefaultRope(10_000.0)),
        ({"rope_theta": 5e5, "rope_scaling": None}, DefaultRope(5e5)),
        (
            {"rope_theta": 1e6, "rope_scaling": {"type": "linear", "factor": 2.0}},
            LinearRope(1e6, 2.0),
        ),
        (
            {
                "rope_theta": 5e5,
                "rope_scaling": {
                    "factor": 8.0,
                    "high_freq_factor": 4.0,
                    "low_freq_factor": 1.0,
                    "original_max_position_embeddings": 64,
                    "rope_type": "llama3",
                },
            },
            Llama3Rope(5e5, 8.0, 1.0, 4.0, 64),
        ),
        (
            {"rope_scaling": {"type": "yarn", "factor": 4.0}},
            YarnRope(10_000.0, 4.0, original_max_position_embeddings=128),
        ),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
            DefaultRope(1e6),
        ),
        (
            {
                "rope_parameters": {
                    "rope_type": "yarn",
                    "rope_theta": 1e6,
                    "factor": 2,
                    "original_max_position_embeddings": 64,
                    "mscale": 1.0,
                    "mscale_all_dim": 0.5,
                    "truncate": False,
                }
            },
            YarnRope(1e6, 2.0, 64, mscale=1.0, mscale_all_dim=0.5, truncate=False),
        ),
    ],
)
def test_rope_is_read_as_transformers_4_and_5_write_it(content, rope):
    assert parse_config({**BASE, **content}).rope == rope


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 5e5},
        {"rope_theta": 1e6, "rope_scaling": {"type": "linear", "factor": 3.0}},
        {"rope_theta": 1e6, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
        {"rope_scaling": {"rope_type": "yarn", "factor": 1.0, "mscale": 0.7}},
    ],
)
def test_rope_of_transformers_4_turns_as_transformers_turns_it(rope):
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    reference = LlamaRotaryEmbedding(AutoConfig.for_model(**{**BASE, **rope}))

    frequencies, scale = rope_frequencies(parse_config({**BASE, **rope}).rope, 16)

    assert scale == pytest.approx(reference.attention_scaling)
    torch.testing.assert_close(frequencies, reference.inv_freq, rtol=1e-6, atol=0)


def test_defaults_are_those_of_transformers():
    minimal = {key: value for key, value in BASE.items() if key != "num_key_value_heads"}

    config = parse_config(minimal)

    assert (config.num_kv_heads, config.head_dim) == (4, 16)
    assert parse_config(family("qwen3")).head_dim == 128
    assert parse_config(family("qwen3", head_dim=32)).head_dim == 32
    assert parse_config(family("qwen2", num_key_value_heads=None)).num_kv_heads == 4


def test_biases_and_norms_follow_the_family():
    def parts(content: dict[str, Any]) -> tuple[bool, bool, bool, bool]:
        config = parse_config(content)
        return config.qkv_bias, config.output_bias, config.mlp_bias, config.qk_norm

    assert parts(BASE) == (False, False, False, False)
    assert parts({**BASE, "attention_bias": True, "mlp_bias": True}) == (True, True, True, False)
    assert parts(family("qwen2")) == (True, False, False, False)
    assert parts(family("qwen3")) == (False, False, False, True)
    assert parts(family("mistral", sliding_window=None)) == (False, False, False, False)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (family("gpt2"), "model_type is 'gpt2': allowed is one of llama, mistral, qwen2, qwen3"),
        ({}, "model_type is missing"),
        ({**BASE, "architectures": ["LlamaModel"]}, "allowed is ['LlamaForCausalLM']"),
        ({**BASE, "hidden_act": "gelu"}, "hidden_act is 'gelu': allowed is one of silu"),
        ({**BASE, "vocab_size": 0}, "vocab_size is 0: allowed is an integer of at least 1"),
        ({**BASE, "vocab_size": "100"}, "vocab_size is '100'"),
        ({**BASE, "num_hidden_layers": True}, "num_hidden_layers is True"),
        ({**BASE, "rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
        ({**BASE, "tie_word_embeddings": 1}, "tie_word_embeddings is 1: allowed is true or false"),
        ({**BASE, "num_key_value_heads": 3}, "allowed is a divisor of 4 attention heads"),
        ({**BASE, "head_dim": 15}, "head_dim is 15: allowed is an even number"),
        ({**BASE, "eos_token_id": [2, "x"]}, "eos_token_id is [2, 'x']"),
        ({**BASE, "eos_token_id": 100}, "token id 100 is outside the vocabulary of 100"),
        ({**BASE, "bos_token_id": -1}, "bos_token_id is -1"),
        ({**BASE, "quantization_config": {"bits": 4}}, "must not be quantized"),
        ({**BASE, "rope_theta": 1}, "rope_theta is 1: allowed is a number above 1"),
        ({**BASE, "rope_scaling": 2}, "rope_scaling is 2: allowed is an object or null"),
        (
            {**BASE, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
            "rope_scaling.type is 'dynamic': allowed is one of default, linear, llama3, yarn",
        ),
        (
            {**BASE, "rope_parameters": {"rope_type": "linear"}},
            "rope_parameters.factor is missing: allowed is a number above 0",
        ),
        (
            {**BASE, "rope_parameters": {"rope_type": "default", "base": 3}},
            "rope_parameters.base is 3: allowed is only the keys",
        ),
        ({**BASE, "partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5: allowed is 1"),
        ({**BASE, "original_max_position_embeddings": 4}, "only within rope_parameters"),
        (
            family("mistral", sliding_window="all"),
            "sliding_window is 'all': allowed is an integer of at least 1",
        ),
        (
            family("qwen2", use_sliding_window="yes", sliding_window=64),
            "use_sliding_window is 'yes': allowed is true or false",
        ),
        (
            family("qwen3", use_sliding_window=True, sliding_window=64, layer_types=7),
            "layer_types is 7: allowed is a list or null",
        ),
        (
            family("qwen3", use_sliding_window=True, sliding_window=64, max_window_layers="1"),
            "max_window_layers is '1': allowed is an integer of at least 0",
        ),
    ],
)
def test_configs_that_would_give_other_logits_are_refused(content, complaint):
    with pytest.raises(InvalidInputError) as refusal:
        parse_config(content, source="models/a/config.json")

    assert "models/a/config.json" in str(refusal.value)
    assert complaint in str(refusal.value)


@pytest.mark.parametrize(
    "content",
    [
        family("mistral", sliding_window=128),
        family("mistral"),
        family("qwen2", use_sliding_window=False, sliding_window=64, max_window_layers=1),
        family("qwen2", use_sliding_window=True, sliding_window=64, max_window_layers=2),
        family(
            "qwen3",
            use_sliding_window=True,
            sliding_window=64,
            layer_types=["full_attention", "full_attention"],
        ),
    ],
)
def test_a_sliding_window_that_hides_nothing_is_allowed(content):
    config = parse_config(content)
    assert (config.context_tokens, config.sliding_window) == (128, None)


@pytest.mark.parametrize(
    ("content", "context"),
    [
        (family("mistral", sliding_window=64), 64),
        (family("mistral", max_position_embeddings=8192), 4096),
        (family("qwen2", use_sliding_window=True, sliding_window=64, max_window_layers=1), 64),
        (
            family(
                "qwen2",
                use_sliding_window=True,
                max_window_layers=0,
                max_position_embeddings=8192,
            ),
            4096,
        ),
        (
            family(
                "qwen3",
                use_sliding_window=True,
                sliding_window=64,
                layer_types=["full_attention", "sliding_attention"],
            ),
            64,
        ),
    ],
)
def test_a_sliding_window_bounds_the_context(content, context):
    assert parse_config(content).context_tokens == context


@pytest.mark.parametrize("name", ["mistral", "qwen2"])
def test_within_its_window_a_model_computes_what_transformers_computes(models, tmp_path, name):
    window = {"mistral": {}, "qwen2": {"use_sliding_window": True, "max_window_layers": 0}}[name]
    reference = models.reference(name, **{"sliding_window": 16, **window})
    reference.save_pretrained(tmp_path)
    decoder = load_decoder(tmp_path, dtype=torch.float32)
    assert decoder.config.context_tokens == 16

    tokens = models.tokens(length=20)
    difference = (models.logits(decoder, tokens) - models.reference_logits(reference, tokens)).abs()

    assert difference[:, :16].max() <= 1e-4
    assert difference[:, 16:].max() > 1e-2


def test_all_problems_are_reported_together():
    content = {**BASE, "hidden_act": "relu", "vocab_size": -1, "rope_scaling": {"type": "su"}}

    with pytest.raises(InvalidInputError) as refusal:
        parse_config(content)

    for key in ("hidden_act", "vocab_size", "rope_scaling.type"):
        assert key in str(refusal.value)


@pytest.mark.parametrize("eos", [(), (2,), (2, 5)])
def test_config_survives_writing_and_reading(config: DecoderConfig, eos):
    from dataclasses import replace

    changed = replace(config, bos_token_id=1, eos_token_ids=eos, rope=YarnRope(1e4, 2.0, 32))

    assert parse_config(json.loads(json.dumps(to_hugging_face(changed)))) == changed


@pytest.mark.parametrize(
    ("text", "complaint"),
    [(None, "cannot read"), ("{", "is not JSON"), ("[]", "must be a JSON object")],
)
def test_unreadable_config_is_named(tmp_path: Path, text, complaint):
    if text is not None:
        (tmp_path / "config.json").write_text(text)

    with pytest.raises(InvalidInputError, match=complaint) as refusal:
        read_config(tmp_path)

    assert str(tmp_path / "config.json") in str(refusal.value)
