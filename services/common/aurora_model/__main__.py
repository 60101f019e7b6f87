"""`aurora drafts import`: makes a draft checkpoint out of a model folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from aurora_common.errors import AuroraError
from aurora_common.flag import add_version_flag
from aurora_common.store.folder import FileStore
from aurora_common.store.model_store import model_uri
from aurora_common.store.registry import StoreRegistry


def main() -> None:
    """Imports a draft; on an error exits with code 1 and its message."""
    parser = argparse.ArgumentParser(prog="aurora drafts import", allow_abbrev=False)
    add_version_flag(parser)
    parser.add_argument("source", type=model_uri)
    parser.add_argument("--target", type=model_uri, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    # Imports torch, which takes seconds: usage errors answer at once.
    from aurora_model.draft.importing import import_draft

    store = StoreRegistry({"file": FileStore()})
    try:
        folder, manifest = import_draft(
            store.fetch(options.source),
            options.out.absolute(),
            target=store.fetch(options.target),
        )
    except AuroraError as error:
        sys.exit(f"aurora drafts import: {error}")
    sys.stdout.write(
        f'initialCheckpoint: {{uri: "{folder.as_uri()}", digest: "{manifest.digest}"}}\n'
    )


if __name__ == "__main__":
    main()
