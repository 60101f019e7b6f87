"""Makes a draft checkpoint for a target out of a model folder, or of random weights."""

from __future__ import annotations

from pathlib import Path

import torch

from aurora_common.checkpoint import MANIFEST, CheckpointManifest, verified_manifest
from aurora_common.errors import AuroraError, CheckpointError, ConflictError
from aurora_model.config import CONFIG, read_config
from aurora_model.draft.checkpoint import check_tokenizer, drop_padding, publish_draft
from aurora_model.draft.kind import Draft
from aurora_model.draft.registry import draft_kind, kind_of_folder
from aurora_model.target import TOKENIZER, TargetIdentity, target_identity
from aurora_model.tokenizer import shared_token_count


def import_draft(source: Path, root: Path, *, target: Path) -> tuple[Path, CheckpointManifest]:
    """Publishes the model in `source` as `<root>/<name of source>-<digest>`, a draft for `target`.

    `source`: a Hugging Face folder, an EAGLE-3 head in one of its published layouts, or a
    checkpoint that was trained for another target. All need the target's tokenizer, which a head
    may leave out; a standalone draft's vocabulary may be padded to another size. Raises
    CheckpointError naming the file and what is allowed, ConflictError if `root` has the same draft
    for another target, and StorageError if a write fails.
    """
    source = source.resolve()
    identity = target_identity(target)
    try:
        draft = _draft(source, target, identity)
    except (AuroraError, OSError) as error:
        raise CheckpointError(f"{source} cannot be imported: {error}") from error
    folder, manifest = publish_draft(draft, root, name=source.name, target=identity)
    if manifest.target_digest != identity.digest:
        raise ConflictError(
            f"{folder} is this draft for another target: import it into another folder"
        )
    return folder, manifest


def new_draft(kind: str, root: Path, *, target: Path, seed: int) -> tuple[Path, CheckpointManifest]:
    """Publishes the draft of day 0 as `<root>/<kind>-<digest>`: what an engine begins with that
    speculates from its start.

    Raises CheckpointError for an unknown kind, InvalidInputError for a target that it cannot be
    made for, and StorageError if a write fails.
    """
    identity = target_identity(target)
    draft = draft_kind(kind).random(read_config(target), seed)
    return publish_draft(draft, root, name=kind, target=identity)


def _draft(source: Path, target: Path, identity: TargetIdentity) -> Draft:
    if not source.is_dir():
        raise CheckpointError("it is not a folder")
    tokens = 0
    if (source / MANIFEST).exists():
        manifest = verified_manifest(source)
        check_tokenizer(manifest, identity)
        kind = draft_kind(manifest.kind)
    else:
        kind = kind_of_folder(source)
        if not kind.needs_target or (source / TOKENIZER).exists():
            tokens = shared_token_count(source, target)
    config = kind.read_config(source)
    if config.vocab_size < tokens:
        raise CheckpointError(
            f"vocab_size in {source / CONFIG} is {config.vocab_size}: allowed is at least the "
            f"{tokens} tokens of its tokenizer"
        )
    draft = kind.load(source, dtype=torch.float32, device="cpu")
    drop_padding(draft, identity)
    draft.check(identity)
    return draft
