"""Draft checkpoints: immutable, named by digest, verified against their target before use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from aurora_common.checkpoint import (
    MANIFEST,
    CheckpointManifest,
    folder_digest,
    read_manifest,
    verified_manifest,
)
from aurora_common.durable import new_folder
from aurora_common.errors import AuroraError, CheckpointError
from aurora_model.draft.kind import Draft
from aurora_model.draft.registry import draft_kind
from aurora_model.target import TargetIdentity

_DIGEST_PREFIX = "sha256:"
_DIGEST_CHARACTERS_IN_NAME = 12


def load_draft(
    folder: Path,
    *,
    digest: str = "",
    target: TargetIdentity,
    dtype: torch.dtype,
    device: str = "cpu",
) -> tuple[Draft, CheckpointManifest]:
    """Verifies a checkpoint in full, then loads it as the kind that its manifest names.

    `digest`: the expected one; empty: whatever the manifest says. Its vocabulary may be padded to
    another size than the target's: ids that the target lacks are dropped, and it never proposes
    those that it lacks itself. Raises CheckpointError naming the checkpoint and the reason if its
    files do not match the digest, its kind is not supported, it was trained for another target or
    tokenizer, or its shapes or weights do not fit.
    """
    try:
        manifest = verified_manifest(folder, digest=digest)
        kind = draft_kind(manifest.kind)
        _check_target(manifest, target)
        draft = kind.load(folder, dtype=dtype, device=device)
        drop_padding(draft, target)
        draft.check(target)
        _check_finite(draft)
    except (AuroraError, OSError) as error:
        raise CheckpointError(f"draft checkpoint {folder.name} is refused: {error}") from error
    return draft, manifest


def publish_draft(
    draft: Draft,
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

    The manifest's name is the folder's. If the same weights were published under this name before,
    the existing checkpoint is returned unchanged. Raises CheckpointError for weights that are not
    finite or do not fit the target, and StorageError if a write fails; either leaves nothing
    behind.
    """
    try:
        _check_finite(draft)
        draft.check(target)
    except CheckpointError as error:
        raise CheckpointError(f"draft {name} is not published: {error}") from error
    with new_folder(root / name, final_name=_manifest_name) as folder:
        draft.save(folder)
        digest = folder_digest(folder)
        manifest = CheckpointManifest(
            name=f"{name}-{digest.removeprefix(_DIGEST_PREFIX)[:_DIGEST_CHARACTERS_IN_NAME]}",
            digest=digest,
            target_digest=target.digest,
            tokenizer_digest=target.tokenizer_digest,
            kind=draft.kind,
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


def _manifest_name(folder: Path) -> str:
    return read_manifest(folder).name


def _check_target(manifest: CheckpointManifest, target: TargetIdentity) -> None:
    check_tokenizer(manifest, target)
    if not target.is_named_by(manifest.target_digest):
        raise CheckpointError(
            f"it was trained for target {manifest.target_digest}, this one is {target.digest}; "
            "`aurora drafts import` makes a draft for this one of it"
        )


def drop_padding(draft: Draft, target: TargetIdentity) -> None:
    """Drops the token ids that the target lacks, in place; raises CheckpointError if it cannot."""
    if draft.config.vocab_size > target.vocab_size:
        draft.narrow(target.vocab_size)


def check_tokenizer(manifest: CheckpointManifest, target: TargetIdentity) -> None:
    """Raises CheckpointError if the draft was trained for another tokenizer."""
    if manifest.tokenizer_digest != target.tokenizer_digest:
        raise CheckpointError(
            f"it was trained for tokenizer {manifest.tokenizer_digest}, this one is "
            f"{target.tokenizer_digest}"
        )


def _check_finite(draft: Draft) -> None:
    # isfinite of a whole tensor costs a copy of it as booleans; its extremes do not.
    broken = [
        name
        for name, parameter in draft.named_parameters()
        if not all(extreme.isfinite() for extreme in parameter.detach().aminmax())
    ]
    if broken:
        raise CheckpointError(f"its weights are not finite: {', '.join(broken)}")
