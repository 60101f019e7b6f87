"""What a checkpoint must have in common with the draft that the engine started with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_safetensors
from torch import Tensor
from transformers import AutoConfig

from aurora_vllm.checkpoint import CONFIG, Checkpoint
from aurora_vllm.refusal import RefusedError, bad_checkpoint

_NAMED_AT_MOST = 8
_FLOATING = ("F64", "F32", "F16", "BF16")
# What changes the computation though every tensor has the same name and shape.
_COMPUTATION = (
    "model_type",
    "hidden_act",
    "rms_norm_eps",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "partial_rotary_factor",
    "sliding_window",
    "layer_types",
    "tie_word_embeddings",
    "logit_scale",
    "final_logit_softcapping",
    "attn_logit_softcapping",
    "query_pre_attn_scalar",
    "eagle_config",
    "eagle_aux_hidden_state_layer_ids",
    "norm_before_residual",
    "norm_before_fc",
    "fc_norm",
    "norm_output",
)


@dataclass(frozen=True, slots=True)
class Form:
    """A tensor's shape and kind: `floating`, which the engine casts, or the exact dtype."""

    shape: tuple[int, ...]
    kind: str

    def __str__(self) -> str:
        return f"{self.kind} {list(self.shape)}"


@dataclass(frozen=True, slots=True)
class Layout:
    """The form of each tensor of a draft by name, and its config."""

    forms: Mapping[str, Form]
    config: Mapping[str, Any]


def layout_of(folder: Path) -> Layout:
    """The layout of a draft in a trusted folder; raises RefusedError if it cannot be read."""
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        forms: dict[str, Form] = {}
        for name in weight_names(path.name for path in folder.glob("*.safetensors")):
            with safe_open(folder / name, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118  (not a mapping)
                    part = file.get_slice(key)
                    forms[key] = Form(tuple(part.get_shape()), _kind(part.get_dtype()))
    except (OSError, ValueError, SafetensorError) as error:
        raise bad_checkpoint(f"the draft that the engine started with: {error}") from error
    if not forms:
        raise bad_checkpoint(
            f"the draft that the engine started with, {folder}, has no safetensors"
        )
    return Layout(forms, config)


def fitting_tensors(checkpoint: Checkpoint, layout: Layout) -> dict[str, Tensor]:
    """The checkpoint's tensors by name; raises RefusedError unless they fit and are finite."""
    tensors: dict[str, Tensor] = {}
    for name in weight_names(checkpoint.weights):
        try:
            tensors |= load_safetensors(checkpoint.weights[name])
        except SafetensorError as error:
            raise bad_checkpoint(f"{name} is not a whole safetensors file: {error}") from error
    _check_forms({name: _form(tensor) for name, tensor in tensors.items()}, layout.forms)
    _check_config(checkpoint.config, layout.config)
    broken = sorted(name for name, tensor in tensors.items() if not _is_finite(tensor))
    if broken:
        raise bad_checkpoint(f"weights that are not finite: {_listed(broken)}")
    return tensors


def weight_names(names: Iterable[str]) -> list[str]:
    """Of the safetensors in a folder those that a model is loaded from: its shards, or the one."""
    found = sorted(names)
    whole = [name for name in found if name == "model.safetensors"]
    shards = [name for name in found if name.startswith("model-")]
    return whole or shards or found


def _check_forms(found: Mapping[str, Form], expected: Mapping[str, Form]) -> None:
    other = [
        f"{name} is {form}, not {expected[name]}"
        for name, form in sorted(found.items())
        if name in expected and form != expected[name]
    ]
    problems = [
        f"{what}: {_listed(names)}"
        for what, names in (
            ("missing", sorted(expected.keys() - found.keys())),
            ("unexpected", sorted(found.keys() - expected.keys())),
            ("of another form", other),
        )
        if names
    ]
    if problems:
        raise RefusedError(
            "its tensors are not those of the draft that the engine started with; "
            + "; ".join(problems),
            status=400,
            code="bad_checkpoint",
            param="path",
        )


def _check_config(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    ours, theirs = _with_defaults(found), _with_defaults(expected)
    other = [
        f"{key} is {ours.get(key)!r}, not {theirs.get(key)!r}"
        for key in _COMPUTATION
        if ours.get(key) != theirs.get(key)
    ]
    if other:
        raise bad_checkpoint(
            f"its {CONFIG} is not that of the draft that the engine started with: {_listed(other)}"
        )


def _with_defaults(config: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        known: Mapping[str, Any] = AutoConfig.for_model(**config).to_dict()
    except (ValueError, TypeError, KeyError):
        return config  # a model type that transformers does not know
    return known


def _form(tensor: Tensor) -> Form:
    kind = str(tensor.dtype).removeprefix("torch.")
    floating = tensor.dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    return Form(tuple(tensor.shape), "floating" if floating else kind)


def _kind(dtype: str) -> str:
    """The kind of a dtype as safetensors spells it."""
    if dtype in _FLOATING:
        return "floating"
    lengths = {"I": "int", "U": "uint"}
    return lengths[dtype[0]] + dtype[1:] if dtype[1:].isdigit() else dtype.lower()


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    # isfinite of a whole tensor costs a copy of it as booleans; its extremes do not.
    return all(bool(extreme.isfinite()) for extreme in tensor.aminmax())


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
