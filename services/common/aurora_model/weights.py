"""Loads and saves a decoder's weights as safetensors with Hugging Face's names."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from aurora_common.errors import CheckpointError, StorageError
from aurora_common.log import report
from aurora_model.config import CONFIG, DecoderConfig, read_config, to_hugging_face
from aurora_model.decoder import Decoder
from aurora_model.weight_file import WEIGHTS, weight_files

# Old Llama files store the rotary frequencies, which the config determines.
_DERIVED_SUFFIX = ".rotary_emb.inv_freq"
_NAMED_AT_MOST = 8
_REPORT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor of the file: its Hugging Face name and shape."""

    name: str
    shape: tuple[int, ...]


def weight_layout(config: DecoderConfig) -> dict[str, tuple[Part, ...]]:
    """Maps each parameter of a Decoder to the tensors that form it, joined along dimension 0.

    A tied `lm_head` is left out.
    """
    hidden = (config.hidden_size,)
    table = (config.vocab_size, config.hidden_size)
    layout: dict[str, tuple[Part, ...]] = {}
    layout["embed_tokens.weight"] = (Part("model.embed_tokens.weight", table),)
    for index in range(config.num_layers):
        for name, parts in layer_layout(config, f"model.layers.{index}").items():
            layout[f"layers.{index}.{name}"] = parts
    layout["norm.weight"] = (Part("model.norm.weight", hidden),)
    if not config.tie_word_embeddings:
        layout["lm_head.weight"] = (Part("lm_head.weight", table),)
    return layout


def load_decoder(
    folder: Path,
    *,
    dtype: torch.dtype,
    device: str = "cpu",
    config: DecoderConfig | None = None,
) -> Decoder:
    """Reads config.json and the safetensors beside it, in one file or in indexed shards.

    `config`: the folder's, if it has been read. Raises InvalidInputError for an unsupported
    config, and CheckpointError as `load_weights` does.
    """
    with torch.device("meta"):
        decoder = Decoder(read_config(folder) if config is None else config)
    load_weights(decoder, folder, dtype=dtype, device=device)
    return decoder


def load_weights(decoder: Decoder, folder: Path, *, dtype: torch.dtype, device: str) -> None:
    """Loads the weights of a folder into a decoder that was built on the meta device.

    Logs its progress. Raises CheckpointError naming the tensors that are missing, unexpected or of
    another shape, and any file that is damaged; StorageError if one cannot be read.
    """
    # Some tied checkpoints also store the head, which transformers ignores.
    ignored = {"lm_head.weight"} if decoder.config.tie_word_embeddings else set()
    state = load_tensors(
        folder, weight_layout(decoder.config), dtype=dtype, device=device, ignored=ignored
    )
    if decoder.config.tie_word_embeddings:
        state["lm_head.weight"] = state["embed_tokens.weight"]
    decoder.load_state_dict(state, assign=True)
    decoder.tie_embeddings()
    decoder.to(device)


def save_decoder(decoder: Decoder, folder: Path) -> None:
    """Writes config.json and model.safetensors, which transformers' `from_pretrained` can read.

    Raises StorageError if a write fails.
    """
    save_tensors(
        folder,
        decoder.state_dict(),
        weight_layout(decoder.config),
        config=to_hugging_face(decoder.config),
    )


def load_tensors(
    folder: Path,
    layout: Mapping[str, tuple[Part, ...]],
    *,
    dtype: torch.dtype,
    device: str,
    ignored: Collection[str] = (),
) -> dict[str, Tensor]:
    """Each tensor of a layout, joined of its parts; integers keep their type.

    `ignored`: what the files may have beside the layout. Logs and raises as `load_weights` does.
    """
    state = {}
    with _open_tensors(folder) as tensors:
        _check_tensors(folder, layout, tensors, ignored)
        progress = _Progress(folder)
        for name, parts in layout.items():
            pieces = [tensors[part.name].read() for part in parts]
            # Always a copy: safetensors returns views of the mapped file.
            cast = [piece.to(dtype) if piece.is_floating_point() else piece for piece in pieces]
            state[name] = torch.cat(cast).to(device)
            progress.add(sum(piece.nbytes for piece in pieces))
    return state


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor in a folder's safetensors; raises as `load_weights` does."""
    with _open_tensors(folder) as tensors:
        return {name: tensor.shape for name, tensor in tensors.items()}


def save_tensors(
    folder: Path,
    state: Mapping[str, Tensor],
    layout: Mapping[str, tuple[Part, ...]],
    *,
    config: Mapping[str, Any],
) -> None:
    """Writes the tensors of a layout, split into its parts, and a config with their dtype.

    Raises StorageError if a write fails.
    """
    tensors: dict[str, Tensor] = {}
    for name, parts in layout.items():
        pieces = torch.split(state[name].detach().cpu(), [part.shape[0] for part in parts])
        for part, piece in zip(parts, pieces, strict=True):
            # A copy: safetensors refuses pieces that share one storage.
            tensors[part.name] = piece.clone(memory_format=torch.contiguous_format)
    floating = next(state[name].dtype for name in layout if state[name].is_floating_point())
    dtype = str(floating).removeprefix("torch.")
    text = json.dumps({**config, "dtype": dtype}, indent=2)
    try:
        (folder / CONFIG).write_text(text + "\n")
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        # safetensors creates it private, but it may be served by another user.
        (folder / WEIGHTS).chmod(0o644)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"cannot write the weights in {folder}: {error}") from error


def layer_layout(
    config: DecoderConfig, prefix: str, *, input_size: int | None = None
) -> dict[str, tuple[Part, ...]]:
    """Maps each parameter of a DecoderLayer to the tensors named `prefix`.… that form it.

    `input_size`: what its attention reads, by default the hidden size.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    read = hidden if input_size is None else input_size
    query, key = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    linears = [
        ("attention.qkv_proj", "self_attn.q_proj", query, read, config.qkv_bias),
        ("attention.qkv_proj", "self_attn.k_proj", key, read, config.qkv_bias),
        ("attention.qkv_proj", "self_attn.v_proj", key, read, config.qkv_bias),
        ("attention.o_proj", "self_attn.o_proj", hidden, query, config.output_bias),
        ("mlp.gate_up_proj", "mlp.gate_proj", inner, hidden, config.mlp_bias),
        ("mlp.gate_up_proj", "mlp.up_proj", inner, hidden, config.mlp_bias),
        ("mlp.down_proj", "mlp.down_proj", hidden, inner, config.mlp_bias),
    ]
    norms = [
        ("attention_norm", "input_layernorm", hidden),
        ("mlp_norm", "post_attention_layernorm", hidden),
    ]
    layout: dict[str, tuple[Part, ...]] = {
        f"{ours}.weight": (Part(f"{prefix}.{theirs}.weight", (size,)),)
        for ours, theirs, size in norms
    }
    if config.qk_norm:
        for ours, theirs in (("query_weight", "q_norm"), ("key_weight", "k_norm")):
            part = Part(f"{prefix}.self_attn.{theirs}.weight", (config.head_dim,))
            layout[f"attention.qk_norm.{ours}"] = (part,)
    for ours, theirs, rows, columns, bias in linears:
        weight = Part(f"{prefix}.{theirs}.weight", (rows, columns))
        layout[f"{ours}.weight"] = (*layout.get(f"{ours}.weight", ()), weight)
        if bias:
            part = Part(f"{prefix}.{theirs}.bias", (rows,))
            layout[f"{ours}.bias"] = (*layout.get(f"{ours}.bias", ()), part)
    return layout


@dataclass(frozen=True, slots=True)
class _StoredTensor:
    shape: tuple[int, ...]
    read: Callable[[], Tensor]


@contextmanager
def _open_tensors(folder: Path) -> Iterator[dict[str, _StoredTensor]]:
    """Every tensor of the folder by name, read on demand."""
    with ExitStack() as stack:
        tensors: dict[str, _StoredTensor] = {}
        try:
            for path in weight_files(folder):
                file = stack.enter_context(safe_open(path, framework="pt"))
                for name in file.keys():  # noqa: SIM118  (not a mapping)
                    tensors[name] = _stored_tensor(file, name)
            yield tensors
        except SafetensorError as error:
            raise CheckpointError(f"cannot read the weights in {folder}: {error}") from error
        except OSError as error:
            raise StorageError(f"cannot read the weights in {folder}: {error}") from error


class _Progress:
    """Reports now and then how much of a folder's weights is loaded."""

    def __init__(self, folder: Path) -> None:
        self._total_bytes = sum(path.stat().st_size for path in weight_files(folder))
        self._loaded_bytes = 0
        self._reported_at = time.monotonic()

    def add(self, size_bytes: int) -> None:
        self._loaded_bytes += size_bytes
        now = time.monotonic()
        if now - self._reported_at >= _REPORT_SECONDS:
            self._reported_at = now
            done, total = self._loaded_bytes / 1e9, self._total_bytes / 1e9
            report(f"loading weights: {done:.1f} of {total:.1f} GB")


def _stored_tensor(file: Any, name: str) -> _StoredTensor:
    return _StoredTensor(tuple(file.get_slice(name).get_shape()), lambda: file.get_tensor(name))


def _check_tensors(
    folder: Path,
    layout: Mapping[str, tuple[Part, ...]],
    tensors: dict[str, _StoredTensor],
    ignored: Collection[str],
) -> None:
    expected = {part.name: part.shape for parts in layout.values() for part in parts}
    missing = sorted(expected.keys() - tensors.keys())
    unexpected = sorted(
        name
        for name in tensors.keys() - expected.keys() - set(ignored)
        if not name.endswith(_DERIVED_SUFFIX)
    )
    reshaped = [
        f"{name} {list(tensors[name].shape)}, not {list(shape)}"
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    ]
    problems = [
        f"{what}: {_listed(names)}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", reshaped),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            f"the weights in {folder} do not fit its {CONFIG}; tensors " + "; ".join(problems)
        )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
