"""The identity of a target, which its drafts must match."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aurora_common.checkpoint import file_digest, file_digests, listing_digest
from aurora_common.errors import InvalidInputError
from aurora_model.config import CONFIG, DecoderConfig, read_config
from aurora_model.weight_file import weight_files

TOKENIZER = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class TargetIdentity:
    """Identifies a target by content; digests are `sha256:<hex>`.

    `digest` covers config.json, tokenizer.json and the weights. `former_digest` covers every file
    of the folder: what drafts and states of earlier versions name. `config`: its shape, which some
    drafts depend on; None if nobody looked.
    """

    digest: str
    tokenizer_digest: str
    vocab_size: int
    former_digest: str = ""
    config: DecoderConfig | None = None

    def is_named_by(self, digest: str) -> bool:
        """Whether a draft, state or trajectory with this target digest belongs to this target."""
        return digest in (self.digest, self.former_digest or self.digest)


def target_identity(folder: Path) -> TargetIdentity:
    """Reads every file of a target once.

    The digest is what `sha256sum` of the three kinds of files, sorted by name, gives when piped
    into it. Raises InvalidInputError if the config is not supported or a file cannot be read, and
    CheckpointError if weights are missing.
    """
    config = read_config(folder)
    identifying = {CONFIG, TOKENIZER, *(path.name for path in weight_files(folder))}
    try:
        files = file_digests(folder)
        # Missing in the listing: name it as opening it does.
        tokenizer = files.get(TOKENIZER) or file_digest(folder / TOKENIZER)
    except OSError as error:
        raise InvalidInputError(
            f"cannot read the target in {folder}: {error.filename}: {error.strerror}"
        ) from error
    return TargetIdentity(
        digest=listing_digest({name: files[name] for name in identifying}),
        tokenizer_digest=f"sha256:{tokenizer}",
        vocab_size=config.vocab_size,
        former_digest=listing_digest(files),
        config=config,
    )
