"""Draft checkpoints: immutable, named by digest, proven fit for their target before use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from aurora_common.checkpoint import (
    MANIFEST,
    CheckpointManifest,
    folder_digest,
    read_manifest,
    verified_manifest,
)
from aurora_common.durable import new_folder
from aurora_common.errors import AuroraError, CheckpointError
from aurora_model.config import DecoderConfig, read_config
from aurora_model.decoder import Decoder
from aurora_model.target import TargetIdentity
from aurora_model.weights import load_decoder, save_decoder

_DIGEST_PREFIX = "sha256:"
_DIGEST_CHARACTERS_IN_NAME = 12


def load_draft(
    folder: Path,
    *,
    digest: str = "",
    target: TargetIdentity,
    dtype: torch.dtype,
    device: str = "cpu",
) -> tuple[Decoder, CheckpointManifest]:
    """Verifies a checkpoint in full, then loads it.

    `digest`: what the caller expects; empty: whatever its manifest says. Raises CheckpointError
    naming the checkpoint and the reason where its files differ from its digest, it was trained for
    another target or tokenizer, or its vocabulary, shapes or weights are not fit.
    """
    try:
        manifest = verified_manifest(folder, digest=digest)
        _check_target(manifest, target)
        config = read_config(folder)
        if config.vocab_size != target.vocab_size:
            raise CheckpointError(
                f"its vocabulary has {config.vocab_size} tokens, the target's {target.vocab_size}"
            )
        decoder = load_decoder(folder, dtype=dtype, device=device)
        _check_finite(decoder)
    except (AuroraError, OSError) as error:
        raise CheckpointError(f"draft checkpoint {folder.name} is refused: {error}") from error
    return decoder, manifest


def publish_draft(
    decoder: Decoder,
    root: Path,
    *,
    name: str,
    target: TargetIdentity,
    parent_digest: str = "",
    objective: str = "",
    trained_from: str = "",
    trained_through: str = "",
    created_at_ms: int = 0,
    metrics: Mapping[str, float] | None = None,
) -> tuple[Path, CheckpointManifest]:
    """Writes a checkpoint as `<root>/<name>-<first 12 hex of its digest>`, whole or not at all.

    Its manifest's name is the folder's. Publishing the same weights again under the same name
    leaves and returns what is there. Raises CheckpointError for weights that are not finite or do
    not fit the target's vocabulary, and StorageError where the disk does not take it; nothing is
    left of it.
    """
    try:
        _check_finite(decoder)
        if decoder.config.vocab_size != target.vocab_size:
            raise CheckpointError(
                f"its vocabulary has {decoder.config.vocab_size} tokens, "
                f"the target's {target.vocab_size}"
            )
    except CheckpointError as error:
        raise CheckpointError(f"draft {name} is not published: {error}") from error
    with new_folder(root / name, final_name=_manifest_name) as folder:
        save_decoder(decoder, folder)
        digest = folder_digest(folder)
        manifest = CheckpointManifest(
            name=f"{name}-{digest.removeprefix(_DIGEST_PREFIX)[:_DIGEST_CHARACTERS_IN_NAME]}",
            digest=digest,
            target_digest=target.digest,
            tokenizer_digest=target.tokenizer_digest,
            parent_digest=parent_digest,
            objective=objective,
            trained_from=trained_from,
            trained_through=trained_through,
            created_at_ms=created_at_ms,
            metrics=dict(metrics or {}),
        )
        (folder / MANIFEST).write_bytes(manifest.to_json())
    path = root / manifest.name
    return path, read_manifest(path)


def small_draft_config(target: DecoderConfig) -> DecoderConfig:
    """A day-0 draft for a target: one layer, half as wide, of the same family and vocabulary.

    Its embeddings are tied, since most of so small a draft would be embeddings.
    """
    heads = max(target.num_heads // 2, 1)
    kv_heads = next(
        count for count in range(min(target.num_kv_heads, heads), 0, -1) if heads % count == 0
    )
    return replace(
        target,
        num_layers=1,
        # A multiple of the heads, which transformers' Llama insists on.
        hidden_size=heads * (target.hidden_size // target.num_heads),
        intermediate_size=max(target.intermediate_size // 2, 1),
        num_heads=heads,
        num_kv_heads=kv_heads,
        tie_word_embeddings=True,
    )


def random_draft(config: DecoderConfig, seed: int) -> Decoder:
    """A float32 decoder to train from: the same weights for the same seed.

    Weights are normal with `initializer_range`, those that write into the residual stream narrower
    by the square root of their number (GPT-2), biases zero, norms one.
    """
    decoder = Decoder(config)
    generator = torch.Generator().manual_seed(seed)
    deviation = config.initializer_range
    into_residual = deviation / (2 * config.num_layers) ** 0.5
    for name, parameter in decoder.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            nn.init.normal_(parameter, std=into_residual, generator=generator)
        elif parameter.dim() > 1:
            nn.init.normal_(parameter, std=deviation, generator=generator)
    return decoder


def _manifest_name(folder: Path) -> str:
    return read_manifest(folder).name


def _check_target(manifest: CheckpointManifest, target: TargetIdentity) -> None:
    for what, found, expected in (
        ("target", manifest.target_digest, target.digest),
        ("tokenizer", manifest.tokenizer_digest, target.tokenizer_digest),
    ):
        if found != expected:
            raise CheckpointError(f"it was trained for {what} {found}, this one is {expected}")


def _check_finite(decoder: Decoder) -> None:
    # isfinite of a whole tensor costs a copy of it as booleans; its extremes do not.
    broken = [
        name
        for name, parameter in decoder.named_parameters()
        if not all(extreme.isfinite() for extreme in parameter.detach().aminmax())
    ]
    if broken:
        raise CheckpointError(f"its weights are not finite: {', '.join(broken)}")
