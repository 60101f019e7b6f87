"""Which files of a model folder hold its weights; imports no torch."""

from __future__ import annotations

import json
from pathlib import Path

from aurora_common.errors import CheckpointError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def weight_files(folder: Path) -> list[Path]:
    """The safetensors that are loaded; raises CheckpointError if one is missing."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    path = folder / INDEX
    if not path.is_file():
        raise CheckpointError(f"{folder} has neither {WEIGHTS} nor {INDEX}")
    try:
        names = sorted(set(json.loads(path.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not an index of safetensors: {error!r}") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{path} names {name!r}, which is not a file beside it")
        if not (folder / name).is_file():
            raise CheckpointError(f"{path} names {name}, which is missing")
    return [folder / name for name in names]
