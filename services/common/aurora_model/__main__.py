"""`aurora drafts import` and `aurora drafts new`: make a draft checkpoint for a target."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from aurora_common.checkpoint import CheckpointManifest
from aurora_common.errors import AuroraError
from aurora_common.flag import add_version_flag
from aurora_common.store.folder import FileStore
from aurora_common.store.model_store import model_uri
from aurora_common.store.registry import StoreRegistry


def main() -> None:
    """Makes a draft; on an error exits with code 1 and its message."""
    options = _parser().parse_args()
    try:
        folder, manifest = _made(options)
    except AuroraError as error:
        sys.exit(f"aurora drafts {options.verb}: {error}")
    sys.stdout.write(
        f'initialCheckpoint: {{uri: "{folder.as_uri()}", digest: "{manifest.digest}"}}\n'
    )


def _made(options: argparse.Namespace) -> tuple[Path, CheckpointManifest]:
    # Imports torch, which takes seconds: usage errors answer at once.
    from aurora_model.draft.importing import import_draft, new_draft

    store = StoreRegistry({"file": FileStore()})
    target, out = store.fetch(options.target), options.out.absolute()
    if options.verb == "import":
        return import_draft(store.fetch(options.source), out, target=target)
    return new_draft(options.kind, out, target=target, seed=options.seed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="aurora drafts", allow_abbrev=False)
    add_version_flag(parser)
    verbs = parser.add_subparsers(dest="verb", required=True)
    importing = verbs.add_parser("import", allow_abbrev=False)
    importing.add_argument("source", type=model_uri)
    new = verbs.add_parser("new", allow_abbrev=False)
    new.add_argument("--kind", required=True)
    new.add_argument("--seed", type=int, default=0)
    for verb in (importing, new):
        verb.add_argument("--target", type=model_uri, required=True)
        verb.add_argument("--out", type=Path, required=True)
    return parser


if __name__ == "__main__":
    main()
