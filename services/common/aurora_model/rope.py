"""The rotary position embedding of a model, from its config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from aurora_model.field import Fields


@dataclass(frozen=True, slots=True)
class DefaultRope:
    """Su et al., RoFormer (arXiv 2104.09864)."""

    rope_theta: float


@dataclass(frozen=True, slots=True)
class LinearRope:
    """Positions divided by `factor` (arXiv 2306.15595)."""

    rope_theta: float
    factor: float


@dataclass(frozen=True, slots=True)
class Llama3Rope:
    """Low frequencies divided by `factor`, high ones kept, a ramp between them (Llama 3.1)."""

    rope_theta: float
    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True, slots=True)
class YarnRope:
    """NTK-by-parts interpolation with a temperature on the attention (arXiv 2309.00071)."""

    rope_theta: float
    factor: float
    original_max_position_embeddings: int
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True


RopeConfig = DefaultRope | LinearRope | Llama3Rope | YarnRope

# "dynamic" and "longrope" change the frequencies of cached tokens as the sequence grows, so
# decoding with a cache would differ from the full forward pass.
_KINDS: dict[str, type[RopeConfig]] = {
    "default": DefaultRope,
    "linear": LinearRope,
    "llama3": Llama3Rope,
    "yarn": YarnRope,
}
_DEFAULT_THETA = 10_000.0


def parse_rope(
    content: Mapping[str, Any], problems: list[str], *, max_position_embeddings: int
) -> RopeConfig:
    """The rotary embedding of a config.json, `content`; appends invalid values to `problems`.

    Reads transformers 5's `rope_parameters` and 4's `rope_theta` with `rope_scaling`.
    """
    key, found = _rope_object(content)
    if not isinstance(found, Mapping):
        Fields(content, problems).reject(key, "an object or null")
        found = {}
    fields = Fields(found, problems, prefix=f"{key}.")
    kind = fields.choice(
        "rope_type" if "rope_type" in found or "type" not in found else "type", _KINDS, "default"
    )
    theta = Fields(content, problems).number("rope_theta", _DEFAULT_THETA, minimum=1)
    theta = fields.number("rope_theta", theta, minimum=1)
    for name, source in (
        (f"{key}.partial_rotary_factor", found),
        ("partial_rotary_factor", content),
    ):
        if source.get("partial_rotary_factor", 1) not in (1, None):
            problems.append(f"{name} is {source['partial_rotary_factor']!r}: allowed is 1")
    if kind is None:
        return DefaultRope(theta)
    rope = _KINDS[kind]
    fields.only({*rope.__dataclass_fields__, "rope_type", "type", "partial_rotary_factor"})
    return _rope(rope, fields, theta, max_position_embeddings)


def rope_parameters(rope: RopeConfig) -> dict[str, Any]:
    """The `rope_parameters` object that transformers 5 reads."""
    kind = next(kind for kind, known in _KINDS.items() if isinstance(rope, known))
    content = {key: value for key, value in asdict(rope).items() if value is not None}
    return {"rope_type": kind, **content}


def _rope_object(content: Mapping[str, Any]) -> tuple[str, Any]:
    # transformers 5 prefers `rope_scaling` if a file has both.
    if content.get("rope_scaling"):
        return "rope_scaling", content["rope_scaling"]
    found = content.get("rope_parameters")
    return "rope_parameters", {} if found is None else found


def _rope(
    kind: type[RopeConfig], fields: Fields, theta: float, max_position_embeddings: int
) -> RopeConfig:
    if kind is DefaultRope:
        return DefaultRope(theta)
    factor = fields.number("factor")
    if kind is LinearRope:
        return LinearRope(theta, factor)
    original = fields.integer("original_max_position_embeddings", max_position_embeddings)
    if kind is Llama3Rope:
        low = fields.number("low_freq_factor")
        high = fields.number("high_freq_factor")
        if high <= low:
            fields.reject("high_freq_factor", f"a number above low_freq_factor, {low:g}")
        return Llama3Rope(theta, factor, low, high, original)
    return YarnRope(
        rope_theta=theta,
        factor=factor,
        original_max_position_embeddings=original,
        attention_factor=fields.optional_number("attention_factor"),
        beta_fast=fields.number("beta_fast", 32.0),
        beta_slow=fields.number("beta_slow", 1.0),
        mscale=fields.optional_number("mscale"),
        mscale_all_dim=fields.optional_number("mscale_all_dim"),
        truncate=fields.flag("truncate", default=True),
    )
