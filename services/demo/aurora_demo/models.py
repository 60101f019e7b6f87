"""The demo's models, trained on the first run and cached."""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import torch

from aurora_common.checkpoint import read_manifest
from aurora_common.durable import new_folder, write_file
from aurora_common.errors import AuroraError, CheckpointError, StorageError
from aurora_demo.building import planned_work, trained_draft, trained_target
from aurora_demo.corpus import DOMAINS, TRAINING_MODULES, Domain, generated_documents, read_modules
from aurora_demo.progress import TrainingProgress
from aurora_demo.recipe import Recipe
from aurora_demo.training import fastest_dtype
from aurora_demo.vocabulary import (
    CHAT_TEMPLATE,
    CHAT_TEMPLATE_FILE,
    Vocabulary,
    load_vocabulary,
    trained_vocabulary,
)
from aurora_model.draft import load_draft, publish_draft
from aurora_model.target import target_identity
from aurora_model.weights import load_decoder, save_decoder, tensor_shapes

CACHE_VARIABLE = "AURORA_CACHE_DIR"
_DRAFT_NAME = "draft"
# The recipe's version whose models differ only in that the target lacks the chat template.
_WITHOUT_TEMPLATE = 1
# With these, held-out acceptance on a new domain passes 80% after two dozen steps: the least work
# among rates from 1e-3 to 4e-3 and batches of 16 and 32.
HYPERPARAMETERS: dict[str, str | int] = {
    "learningRate": "2e-3",
    "batchSize": 16,
    "stepsPerRound": 40,
}


@dataclass(frozen=True, slots=True)
class DemoModels:
    """Where the models are, and how the demo serves and trains them.

    `target` and `draft` are folders as Hugging Face lays them out, the draft's an Aurora checkpoint
    of this digest and kind, as manifests call it; `target_dtype` is float32 or bfloat16, whichever
    is faster here.
    """

    target: Path
    draft: Path
    draft_digest: str
    target_dtype: str
    hyperparameters: dict[str, str | int]
    kind: str = "Standalone"

    def vocabulary(self) -> Vocabulary:
        return load_vocabulary(self.target)


def cache_root() -> Path:
    """$AURORA_CACHE_DIR, else ~/.cache/aurora."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "aurora"


def training_documents(recipe: Recipe, library: Path) -> dict[Domain, list[str]]:
    """The training text; `library`: the folder of the standard library."""
    return {
        domain: read_modules(library, TRAINING_MODULES)
        if domain == "python"
        else list(islice(generated_documents(domain, seed=recipe.seed), recipe.generated_documents))
        for domain in DOMAINS
    }


def prepared_models(
    recipe: Recipe,
    documents: dict[Domain, list[str]],
    root: Path,
    progress: TrainingProgress,
) -> DemoModels:
    """The models of this recipe and these documents, trained now unless cached in `root`.

    Models finished before an interruption are kept. Raises StorageError, before any training, if
    the cache is not writable, and CheckpointError if its contents are damaged.
    """
    texts = [text for domain in DOMAINS for text in documents[domain]]
    folder = root / "demo" / recipe.digest(texts)
    target = folder / "target"
    draft = _published_draft(folder)
    if draft is None:
        _claim(folder, recipe)
        former = root / "demo" / replace(recipe, version=_WITHOUT_TEMPLATE).digest(texts)
        draft = _adopted(former, folder) or _built(recipe, documents, folder, progress)
    manifest = read_manifest(draft)
    if not target_identity(target).is_named_by(manifest.target_digest):
        raise CheckpointError(f"the demo's models in {folder} are damaged; remove that folder")
    return DemoModels(
        target=target,
        draft=draft,
        draft_digest=manifest.digest,
        target_dtype=str(fastest_dtype()).removeprefix("torch."),
        hyperparameters=HYPERPARAMETERS,
    )


def parameter_count(checkpoint: Path) -> int:
    """How many weights it has of its own; raises CheckpointError if they are unreadable."""
    return sum(math.prod(shape) for shape in tensor_shapes(checkpoint).values())


def _published_draft(folder: Path) -> Path | None:
    # Complete whenever it exists: it is renamed to this name last.
    return next(iter(sorted(folder.glob(f"{_DRAFT_NAME}-*"))), None)


def _claim(folder: Path, recipe: Recipe) -> None:
    """Creates the folder with its recipe, so that an unwritable cache fails early."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / "recipe.json", json.dumps(asdict(recipe), indent=2).encode() + b"\n")
    except (OSError, StorageError) as error:
        raise StorageError(
            f"cannot keep the demo's models in {folder}: {error}; "
            f"set {CACHE_VARIABLE} to a writable folder"
        ) from error


def _adopted(former: Path, folder: Path) -> Path | None:
    """Copies the models of an earlier version and returns the draft's folder; None: none is whole.

    Raises StorageError if a write fails.
    """
    published = _published_draft(former)
    if published is None:
        return None
    try:
        identity = target_identity(former / "target")
        draft, _ = load_draft(published, target=identity, dtype=torch.float32)
    except AuroraError:
        return None
    target = folder / "target"
    with new_folder(target) as beside:
        shutil.copytree(former / "target", beside, dirs_exist_ok=True)
        (beside / CHAT_TEMPLATE_FILE).write_text(CHAT_TEMPLATE)
    return publish_draft(draft, folder, name=_DRAFT_NAME, target=target_identity(target))[0]


def _built(
    recipe: Recipe, documents: dict[Domain, list[str]], folder: Path, progress: TrainingProgress
) -> Path:
    """Trains the missing models and returns the draft's folder."""
    target_folder = folder / "target"
    if target_folder.exists():
        vocabulary = load_vocabulary(target_folder)
        work = planned_work(recipe, vocabulary.size).draft
    else:
        vocabulary = trained_vocabulary(
            [text for each in documents.values() for text in each], recipe.vocabulary_size
        )
        work = planned_work(recipe, vocabulary.size).total
    streams = {
        domain: torch.tensor(vocabulary.encode_documents(texts))
        for domain, texts in documents.items()
    }
    with progress.shown(work):
        if target_folder.exists():
            target = load_decoder(target_folder, dtype=torch.float32)
        else:
            target = trained_target(recipe, streams, vocabulary.size, progress)
            with new_folder(target_folder) as beside:
                save_decoder(target, beside)
                vocabulary.save(beside)
        draft = trained_draft(recipe, target, streams, progress)
    folder_of_draft, _ = publish_draft(
        draft, folder, name=_DRAFT_NAME, target=target_identity(target_folder)
    )
    return folder_of_draft
