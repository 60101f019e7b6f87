"""Which store serves which URI scheme; a new store is one module and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from aurora_common.errors import InvalidInputError
from aurora_common.store.folder import ClaimStore, FileStore
from aurora_common.store.model_store import ModelStore


def model_store(*, claims: Path | None = None) -> ModelStore:
    """Serves every known scheme; pvc:// needs `claims`, the folder where claims are mounted."""
    return StoreRegistry({"file": FileStore(), "pvc": ClaimStore(claims)})


class StoreRegistry:
    """Fetches each URI from the store of its scheme."""

    def __init__(self, stores: Mapping[str, ModelStore]) -> None:
        self._stores = stores

    def fetch(self, uri: str) -> Path:
        store = self._stores.get(urlsplit(uri).scheme)
        if store is None:
            served = ", ".join(f"{scheme}://" for scheme in self._stores)
            raise InvalidInputError(f"no model store serves {uri!r}; served are {served}")
        return store.fetch(uri)
