"""processes.json: the processes that an operator started, for the next one to adopt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from aurora_common.durable import write_file
from aurora_common.errors import StorageError


class _Record(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True
    )


class ProcessRecord(_Record):
    """A process; `create_time` (Unix seconds) distinguishes it from a later one of the same pid."""

    pid: int
    create_time: float
    command_digest: str
    restarts: int = 0


class RuntimeRecord(_Record):
    """The chosen ports, and the processes by component."""

    ports: dict[str, int] = {}
    processes: dict[str, ProcessRecord] = {}


def read_record(path: Path) -> RuntimeRecord:
    """The record, empty if absent; StorageError if the file is damaged."""
    try:
        return RuntimeRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return RuntimeRecord()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        raise StorageError(f"{path} is damaged; stop what still runs and remove it") from error


class RecordBook:
    """The record, in memory and on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.record = read_record(path)

    def keep_ports(self, ports: Mapping[str, int]) -> None:
        self._write(self.record.model_copy(update={"ports": dict(ports)}))

    def put(self, component: str, process: ProcessRecord) -> None:
        processes = {**self.record.processes, component: process}
        self._write(self.record.model_copy(update={"processes": processes}))

    def remove(self, component: str) -> None:
        processes = dict(self.record.processes)
        if processes.pop(component, None) is not None:
            self._write(self.record.model_copy(update={"processes": processes}))

    def _write(self, record: RuntimeRecord) -> None:
        if record != self.record:
            write_file(self._path, record.model_dump_json(by_alias=True, indent=2).encode())
            self.record = record
