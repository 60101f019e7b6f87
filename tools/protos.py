"""Generates protos/gen from protos/aurora; with --check, fails if it is stale."""

from __future__ import annotations

import filecmp
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent.parent / "protos"


def generate(into: Path) -> None:
    sources = sorted(str(path) for path in PROTOS.glob("aurora/**/*.proto"))
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={PROTOS}",
            f"--python_out={into}",
            f"--pyi_out={into}",
            f"--grpc_python_out={into}",
            *sources,
        ]
    )
    if status != 0:
        sys.exit(status)


def stale_files(fresh: Path, committed: Path) -> list[Path]:
    """Relative paths that differ between the two trees or exist in only one of them."""
    trees = [
        {path.relative_to(tree) for path in tree.rglob("*.py*") if "__pycache__" not in path.parts}
        for tree in (fresh, committed)
    ]
    differing = {
        path
        for path in trees[0] & trees[1]
        if not filecmp.cmp(fresh / path, committed / path, shallow=False)
    }
    return sorted((trees[0] ^ trees[1]) | differing)


def main() -> None:
    committed = PROTOS / "gen"
    if "--check" not in sys.argv[1:]:
        generate(committed)
        return
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        stale = stale_files(Path(folder), committed)
    if stale:
        sys.exit(f"protos/gen is stale, run `make protos`: {', '.join(map(str, stale))}")


if __name__ == "__main__":
    main()
