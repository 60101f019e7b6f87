"""The shape of a Llama-family decoder, parsed once from a Hugging Face config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from aurora_common.errors import InvalidInputError
from aurora_model.field import Fields, read_object
from aurora_model.rope import RopeConfig, parse_rope, rope_parameters

Family = Literal["llama", "mistral", "qwen2", "qwen3"]

CONFIG = "config.json"
_ARCHITECTURES: dict[Family, str] = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
# transformers' defaults for absent keys.
_QWEN3_HEAD_DIM = 128
_SLIDING_WINDOW = 4096
_MAX_WINDOW_LAYERS = 28


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """A decoder's shape; fields with Hugging Face's names mean the same.

    `sliding_window`: how many tokens some layers attend to, if fewer than
    `max_position_embeddings`. This decoder attends to all, which differs beyond `context_tokens`.
    """

    family: Family
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position_embeddings: int
    rope: RopeConfig
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    initializer_range: float = 0.02
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    sliding_window: int | None = None

    @property
    def context_tokens(self) -> int:
        """The most tokens, prompt and output together, for which this decoder is exact."""
        return self.sliding_window or self.max_position_embeddings

    @property
    def qkv_bias(self) -> bool:
        return self.attention_bias or self.family == "qwen2"

    @property
    def output_bias(self) -> bool:
        """Whether the attention's output projection has a bias."""
        return self.attention_bias

    @property
    def qk_norm(self) -> bool:
        return self.family == "qwen3"


def read_config(folder: Path) -> DecoderConfig:
    """Parses `config.json`; raises InvalidInputError naming the file and every problem."""
    path = folder / CONFIG
    return parse_config(read_object(path), source=str(path))


def parse_config(content: Mapping[str, Any], *, source: str = CONFIG) -> DecoderConfig:
    """The decoder that a config.json describes.

    Keys that only matter to transformers' training or generation are ignored. Raises
    InvalidInputError naming `source` and every value that this decoder would not compute exactly
    within the config's `context_tokens`.
    """
    problems: list[str] = []
    fields = Fields(content, problems)
    family = cast(Family | None, fields.choice("model_type", get_args(Family)))
    config = _decoder_config(fields, content, family or "llama")
    if family is not None:
        _check_architecture(fields, content, config)
    if not problems:
        _check_consistency(fields, config)
    if problems:
        lines = "\n".join(f"  - {problem}" for problem in problems)
        raise InvalidInputError(f"{source} does not describe a supported decoder:\n{lines}")
    return config


def to_hugging_face(config: DecoderConfig) -> dict[str, Any]:
    """The config.json that transformers (5 and later) and `parse_config` read as `config`.

    Without a sliding window: it describes what this decoder computes.
    """
    eos: int | list[int] | None = list(config.eos_token_ids) or None
    if len(config.eos_token_ids) == 1:
        eos = config.eos_token_ids[0]
    content: dict[str, Any] = {
        "architectures": [_ARCHITECTURES[config.family]],
        "model_type": config.family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_position_embeddings,
        "rope_parameters": rope_parameters(config.rope),
        "rms_norm_eps": config.rms_norm_eps,
        "tie_word_embeddings": config.tie_word_embeddings,
        "initializer_range": config.initializer_range,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": eos,
    }
    if config.family in ("llama", "qwen3"):
        content["attention_bias"] = config.attention_bias
    if config.family == "llama":
        content["mlp_bias"] = config.mlp_bias
    if config.family == "mistral":
        content["sliding_window"] = None
    return content


def _decoder_config(fields: Fields, content: Mapping[str, Any], family: Family) -> DecoderConfig:
    hidden_size = fields.integer("hidden_size")
    num_layers = fields.integer("num_hidden_layers")
    num_heads = fields.integer("num_attention_heads")
    max_position_embeddings = fields.integer("max_position_embeddings")
    window = _sliding_window(fields, content, family, num_layers)
    # Only early Llama files omit the key-value heads; elsewhere absence is ambiguous.
    kv_default = (
        num_heads if family == "llama" or _is_null(content, "num_key_value_heads") else None
    )
    head_default = max(hidden_size // num_heads, 1)
    if family == "qwen3" and "head_dim" not in content:
        head_default = _QWEN3_HEAD_DIM
    return DecoderConfig(
        family=family,
        vocab_size=fields.integer("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=fields.integer("intermediate_size"),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=fields.integer("num_key_value_heads", kv_default),
        head_dim=fields.integer("head_dim", head_default),
        max_position_embeddings=max_position_embeddings,
        rope=parse_rope(content, fields.problems, max_position_embeddings=max_position_embeddings),
        rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
        tie_word_embeddings=fields.flag("tie_word_embeddings", default=False),
        attention_bias=family in ("llama", "qwen3")
        and fields.flag("attention_bias", default=False),
        mlp_bias=family == "llama" and fields.flag("mlp_bias", default=False),
        initializer_range=fields.number("initializer_range", 0.02),
        bos_token_id=_bos_token_id(fields, content),
        eos_token_ids=fields.token_ids("eos_token_id"),
        sliding_window=None if window is None or window >= max_position_embeddings else window,
    )


def _is_null(content: Mapping[str, Any], key: str) -> bool:
    return key in content and content[key] is None


def _bos_token_id(fields: Fields, content: Mapping[str, Any]) -> int | None:
    if content.get("bos_token_id") is None:
        return None
    return fields.integer("bos_token_id", minimum=0)


def _sliding_window(
    fields: Fields, content: Mapping[str, Any], family: Family, num_layers: int
) -> int | None:
    """The window that transformers would apply to any layer; None: it applies none."""
    if _is_null(content, "sliding_window") or not _is_windowed(fields, content, family, num_layers):
        return None
    return fields.integer("sliding_window", _SLIDING_WINDOW)


def _is_windowed(
    fields: Fields, content: Mapping[str, Any], family: Family, num_layers: int
) -> bool:
    if family == "mistral":
        return True
    if family == "llama" or not fields.flag("use_sliding_window", default=False):
        return False
    layer_types = content.get("layer_types")
    if layer_types is None:
        return fields.integer("max_window_layers", _MAX_WINDOW_LAYERS, minimum=0) < num_layers
    if not isinstance(layer_types, list):
        fields.reject("layer_types", "a list or null")
        return False
    return "sliding_attention" in layer_types


def _check_architecture(fields: Fields, content: Mapping[str, Any], config: DecoderConfig) -> None:
    """Rejects what this decoder would compute differently than transformers."""
    fields.choice("hidden_act", ("silu",), "silu")
    architecture = _ARCHITECTURES[config.family]
    if content.get("architectures") not in (None, [architecture]):
        fields.reject("architectures", f"['{architecture}']")
    if content.get("quantization_config") is not None:
        fields.reject("quantization_config", "null: the weights must not be quantized")
    if content.get("original_max_position_embeddings") is not None:
        fields.reject("original_max_position_embeddings", "only within rope_parameters")


def _check_consistency(fields: Fields, config: DecoderConfig) -> None:
    if config.num_heads % config.num_kv_heads:
        fields.reject("num_key_value_heads", f"a divisor of {config.num_heads} attention heads")
    if config.head_dim % 2:
        fields.problems.append(f"head_dim is {config.head_dim}: allowed is an even number")
    for token in (config.bos_token_id, *config.eos_token_ids):
        if token is not None and token >= config.vocab_size:
            fields.problems.append(
                f"token id {token} is outside the vocabulary of {config.vocab_size}"
            )
