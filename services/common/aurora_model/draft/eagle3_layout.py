"""An EAGLE-3 head on disk, in either of the two published layouts.

`LlamaForCausalLMEagle3` is what SpecForge writes and SGLang and vLLM load; `speculators` is that of
vLLM's speculators, which `vllm serve` starts from. They differ in the config and in one prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from aurora_common.errors import CheckpointError, InvalidInputError
from aurora_model.config import CONFIG, DecoderConfig, parse_config, to_hugging_face
from aurora_model.field import Fields, read_object
from aurora_model.rope import DefaultRope, rope_parameters
from aurora_model.weights import Part, layer_layout, tensor_shapes

Layout = Literal["LlamaForCausalLMEagle3", "speculators"]

EAGLE3_ARCHITECTURE: Final = "LlamaForCausalLMEagle3"
EMBEDDING, HEAD, TO_TARGET, TO_DRAFT = "embed_tokens.weight", "lm_head.weight", "d2t", "t2d"
_FC = "fc.weight"
_LAYER_IDS = "eagle_aux_hidden_state_layer_ids"
_STATES = 3
# Variants whose forward pass is another one, and the value that means "not this variant".
_VARIANTS: Mapping[str, Any] = {
    "norm_before_fc": False,
    "fc_norm": False,
    "norm_output": False,
    "use_aux_hidden_state": True,
    "num_aux_hidden_states": _STATES,
    "logit_scale": 1.0,
}
# A target with fewer layers has no three different ones by vLLM's and SGLang's default.
_FEWEST_FOR_DEFAULT = 7


@dataclass(frozen=True, slots=True)
class Verifier:
    """What the speculators layout says of the target, and how many tokens to draft for it."""

    name: str = ""
    architectures: tuple[str, ...] = ()
    speculative_tokens: int = 3


@dataclass(frozen=True, slots=True)
class Eagle3Config:
    """A head's shape.

    `layer`: its decoder layer, with the target's vocabulary. `layer_ids`: which of the target's
    hidden states it reads, as `Decoder.states` counts them; None: the default. `owns_…`: whether
    the checkpoint has the tensor; if not, the target's is used.
    """

    layer: DecoderConfig
    draft_vocab_size: int
    target_hidden_size: int
    layer_ids: tuple[int, ...] | None = None
    norm_before_residual: bool = False
    owns_embedding: bool = False
    owns_head: bool = False
    layout: Layout = EAGLE3_ARCHITECTURE
    verifier: Verifier = Verifier()

    @property
    def vocab_size(self) -> int:
        """The target's."""
        return self.layer.vocab_size

    @property
    def num_layers(self) -> int:
        return self.layer.num_layers

    @property
    def is_reduced(self) -> bool:
        """Whether it proposes only some of the target's tokens."""
        return self.draft_vocab_size < self.layer.vocab_size

    def states_of(self, target_layers: int) -> tuple[int, ...]:
        """Which hidden states of a target with so many layers it reads, ascending."""
        return self.layer_ids or (2, target_layers // 2, target_layers - 3)


def layer_ids_for(target_layers: int) -> tuple[int, ...] | None:
    """What a new head reads: the default (None) if the target is deep enough, else the last states.

    Raises InvalidInputError for a target of one layer.
    """
    if target_layers >= _FEWEST_FOR_DEFAULT:
        return None
    if target_layers < _STATES - 1:
        raise InvalidInputError(
            f"the target has {target_layers} layer: allowed for an EAGLE-3 draft is at least 2"
        )
    # Never one that begins with 1, which SGLang would count differently.
    first = target_layers - 2 if target_layers > _STATES else 0
    return (first, target_layers - 1, target_layers)


def is_head(folder: Path) -> bool:
    """Whether a folder has a draft of the EAGLE family or a speculator, supported or not.

    Raises as `read_eagle3` does.
    """
    content = read_object(folder / CONFIG)
    named = content.get("architectures")
    architectures = named if isinstance(named, list) else []
    return (
        "speculators_model_type" in content
        or any("eagle" in str(each).lower() for each in architectures)
        or _FC in tensor_shapes(folder)
    )


def read_eagle3(folder: Path) -> Eagle3Config:
    """The config of a checkpoint and which tensors it owns.

    Raises InvalidInputError naming every problem, and CheckpointError for unreadable weights or
    those of EAGLE-1 and 2.
    """
    path = folder / CONFIG
    content, shapes = read_object(path), tensor_shapes(folder)
    fc = shapes.get(_FC, (0, 0))
    if content.get("architectures") != [EAGLE3_ARCHITECTURE] and fc[-1] == 2 * fc[0] > 0:
        raise CheckpointError(
            f"the weights in {folder} are those of an EAGLE-1 or EAGLE-2 head, whose fc reads an "
            "embedding and one hidden state: allowed is EAGLE-3"
        )
    owned = {"owns_embedding": EMBEDDING in shapes, "owns_head": HEAD in shapes}
    return parse_eagle3({**content, **owned}, source=str(path))


def parse_eagle3(content: Mapping[str, Any], *, source: str) -> Eagle3Config:
    """The config that `eagle3_content` or a published config.json gives.

    Raises InvalidInputError naming `source` and every value that this head would not compute.
    """
    problems: list[str] = []
    fields = Fields(content, problems)
    layout = _layout(fields, content)
    inner: Any = content
    if layout == "speculators":
        inner = content.get("transformer_layer_config")
        if not isinstance(inner, Mapping):
            fields.reject("transformer_layer_config", "an object")
            inner = {}
    layer = None
    if not problems:
        try:
            layer = _layer(inner, source)
        except InvalidInputError as error:
            problems.append(str(error))
    if layer is not None:
        config = _config(fields, content, layer, layout)
    if problems:
        lines = "\n".join(f"  - {problem}" for problem in problems)
        raise InvalidInputError(f"{source} does not describe a supported EAGLE-3 head:\n{lines}")
    return config


def eagle3_content(config: Eagle3Config) -> dict[str, Any]:
    """The config.json in its layout, which `read_eagle3` reads as `config`."""
    rope = rope_parameters(config.layer.rope)
    layer = {**to_hugging_face(config.layer), "rope_theta": rope.pop("rope_theta")}
    if not isinstance(config.layer.rope, DefaultRope):
        layer["rope_scaling"] = rope
    shared: dict[str, Any] = {
        "target_hidden_size": config.target_hidden_size,
        "norm_before_residual": config.norm_before_residual,
    }
    if config.layer_ids is not None:
        shared[_LAYER_IDS] = list(config.layer_ids)
    if config.layout == "speculators":
        return shared | {
            "architectures": ["Eagle3Speculator"],
            "speculators_model_type": "eagle3",
            "draft_vocab_size": config.draft_vocab_size,
            "transformer_layer_config": {**layer, "architectures": None},
            "speculators_config": _speculators_config(config.verifier),
        }
    if config.layer_ids is not None:
        shared["eagle_config"] = {_LAYER_IDS: list(config.layer_ids), "use_aux_hidden_state": True}
    if config.owns_head:
        # SGLang uses the target's head if this is absent.
        shared["draft_vocab_size"] = config.draft_vocab_size
    return {**layer, "architectures": [EAGLE3_ARCHITECTURE], **shared}


def tensor_layout(config: Eagle3Config, *, with_to_draft: bool) -> dict[str, tuple[Part, ...]]:
    """Maps each tensor of an Eagle3Draft to those of the file that form it."""
    layer = config.layer
    hidden = layer.hidden_size
    prefix = "midlayer" if config.layout == EAGLE3_ARCHITECTURE else "layers.0"
    parts = layer_layout(layer, prefix, input_size=2 * hidden)
    parts["embedding_norm.weight"] = parts.pop("attention_norm.weight")
    parts["hidden_norm.weight"] = (Part(f"{prefix}.hidden_norm.weight", (hidden,)),)
    shapes: dict[str, tuple[int, ...]] = {
        _FC: (hidden, _STATES * config.target_hidden_size),
        "norm.weight": (hidden,),
    }
    if config.owns_embedding:
        shapes[EMBEDDING] = (layer.vocab_size, hidden)
    if config.owns_head:
        shapes[HEAD] = (config.draft_vocab_size, hidden)
    if config.is_reduced:
        shapes[TO_TARGET] = (config.draft_vocab_size,)
        if with_to_draft:
            shapes[TO_DRAFT] = (layer.vocab_size,)
    return parts | {name: (Part(name, shape),) for name, shape in shapes.items()}


def _layout(fields: Fields, content: Mapping[str, Any]) -> Layout:
    if "speculators_model_type" in content:
        fields.choice("speculators_model_type", ("eagle3",))
        return "speculators"
    if content.get("architectures") != [EAGLE3_ARCHITECTURE]:
        fields.reject(
            "architectures",
            f"['{EAGLE3_ARCHITECTURE}'], or a speculators config of speculators_model_type eagle3",
        )
    return EAGLE3_ARCHITECTURE


def _layer(content: Mapping[str, Any], source: str) -> DecoderConfig:
    problems: list[str] = []
    fields = Fields(content, problems)
    fields.choice("model_type", ("llama",))
    if fields.integer("num_hidden_layers") != 1:
        fields.reject("num_hidden_layers", "1")
    if "sliding_attention" in (content.get("layer_types") or ()):
        fields.reject("layer_types", "full attention alone")
    if problems:
        raise InvalidInputError("; ".join(problems))
    # Whether the head is tied to the embedding is decided by which tensors there are.
    plain = {**content, "architectures": None, "tie_word_embeddings": False}
    return parse_config(plain, source=source)


def _config(
    fields: Fields, content: Mapping[str, Any], layer: DecoderConfig, layout: Layout
) -> Eagle3Config:
    nested = content.get("eagle_config")
    inner = Fields(nested, fields.problems, prefix="eagle_config.") if nested else fields
    for found, values in ((fields, content), (inner, nested or {})):
        for key, plain in _VARIANTS.items():
            if values.get(key) not in (None, plain):
                found.reject(key, f"{plain} or null")
    draft_vocab_size = fields.integer("draft_vocab_size", layer.vocab_size)
    if draft_vocab_size > layer.vocab_size:
        fields.reject("draft_vocab_size", f"at most vocab_size, {layer.vocab_size}")
    speculators = layout == "speculators"
    return Eagle3Config(
        layer=layer,
        draft_vocab_size=draft_vocab_size,
        target_hidden_size=fields.integer("target_hidden_size", layer.hidden_size),
        layer_ids=_layer_ids(fields, content, nested or {}, layout),
        # vLLM's default in this layout.
        norm_before_residual=fields.flag("norm_before_residual", default=speculators),
        owns_embedding=fields.flag("owns_embedding", default=False),
        owns_head=fields.flag("owns_head", default=False),
        layout=layout,
        verifier=_verifier(content) if speculators else Verifier(),
    )


def _layer_ids(
    fields: Fields, content: Mapping[str, Any], nested: Mapping[str, Any], layout: Layout
) -> tuple[int, ...] | None:
    found = content.get(_LAYER_IDS) or nested.get(_LAYER_IDS)
    if not found:
        return None
    whole = isinstance(found, list) and all(type(each) is int and each >= 0 for each in found)
    # vLLM sorts them, which would exchange the columns of fc.
    if not whole or len(found) != _STATES or sorted(set(found)) != found:
        fields.problems.append(
            f"{_LAYER_IDS} is {found!r}: allowed are {_STATES} different layers, ascending"
        )
        return None
    # Those that begin with 1 count layers by their output, as SpecForge and SGLang do.
    shift = 1 if layout == EAGLE3_ARCHITECTURE and found[0] == 1 else 0
    return tuple(each + shift for each in found)


def _verifier(content: Mapping[str, Any]) -> Verifier:
    """As far as it says; serving with Aurora needs none of it."""
    found = content.get("speculators_config")
    found = found if isinstance(found, Mapping) else {}
    named, methods = found.get("verifier"), found.get("proposal_methods")
    named = named if isinstance(named, Mapping) else {}
    method = methods[0] if isinstance(methods, list) and methods else {}
    tokens = method.get("speculative_tokens") if isinstance(method, Mapping) else None
    architectures = named.get("architectures")
    return Verifier(
        name=str(named.get("name_or_path") or ""),
        architectures=tuple(map(str, architectures)) if isinstance(architectures, list) else (),
        speculative_tokens=tokens if type(tokens) is int and tokens > 0 else 3,
    )


def _speculators_config(verifier: Verifier) -> dict[str, Any]:
    method = {
        "proposal_type": "greedy",
        "speculative_tokens": verifier.speculative_tokens,
        "accept_tolerance": 0.0,
        "verifier_accept_k": 1,
    }
    return {
        "algorithm": "eagle3",
        "default_proposal_method": "greedy",
        "proposal_methods": [method],
        "verifier": {
            "name_or_path": verifier.name,
            "architectures": list(verifier.architectures),
        },
    }
