"""A local deployment's state on disk: its status and the last accepted manifest."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aurora_common.durable import write_file
from aurora_common.errors import ConflictError, StorageError
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.status.deployment import Status
from aurora_operator.domain.status.status_json import status_from_json, status_to_json


class StatusFile:
    """status.json, replaced as a whole on each write."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Status:
        """The status, empty if absent; StorageError if the file is damaged."""
        try:
            return status_from_json(self._path.read_bytes())
        except FileNotFoundError:
            return Status()
        except OSError as error:
            raise StorageError(f"cannot read {self._path}: {error.strerror}") from error
        except ValueError as error:
            raise StorageError(
                f"{self._path} is damaged; remove it to begin again without its history"
            ) from error

    async def save(self, status: Status) -> None:
        await asyncio.to_thread(write_file, self._path, status_to_json(status).encode())


class Accepted(BaseModel):
    """An accepted manifest; each change of its spec is a new generation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generation: Annotated[int, Field(ge=1)]
    deployment: AuroraDeployment


def read_accepted(path: Path) -> Accepted | None:
    """The last accepted manifest; None before the first one."""
    try:
        return Accepted.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        raise StorageError(f"{path} is damaged; remove it to begin again") from error


def accept(path: Path, deployment: AuroraDeployment) -> Accepted:
    """Stores `deployment` as the accepted manifest of this data directory.

    Raises ConflictError if it changes an immutable field.
    """
    before = read_accepted(path)
    if before is None:
        accepted = Accepted(generation=1, deployment=deployment)
    else:
        _check_immutable(before.deployment, deployment, path.parent)
        changed = before.deployment.spec != deployment.spec
        accepted = Accepted(
            generation=before.generation + 1 if changed else before.generation,
            deployment=deployment,
        )
    if accepted != before:
        write_file(path, accepted.model_dump_json(by_alias=True, indent=2).encode())
    return accepted


def _check_immutable(before: AuroraDeployment, after: AuroraDeployment, folder: Path) -> None:
    fields = (
        ("metadata.name", before.metadata.name, after.metadata.name),
        ("spec.target.uri", before.spec.target.uri, after.spec.target.uri),
        ("spec.target.dtype", before.spec.target.dtype, after.spec.target.dtype),
        ("spec.draft.kind", before.spec.draft.kind, after.spec.draft.kind),
        (
            "spec.modelStore.pvc.claimName",
            before.spec.model_store.pvc.claim_name,
            after.spec.model_store.pvc.claim_name,
        ),
    )
    problems = [
        f"{path} is immutable: it is {was!r} in {folder}, not {now!r}"
        for path, was, now in fields
        if was != now
    ]
    if problems:
        raise ConflictError("; ".join([*problems, "use another data directory"]))
