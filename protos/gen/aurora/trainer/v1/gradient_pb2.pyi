from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ComputeRequest(_message.Message):
    __slots__ = ("task", "batch", "weights")
    TASK_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    task: Task
    batch: bytes
    weights: bytes
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ..., batch: _Optional[bytes] = ..., weights: _Optional[bytes] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("draft_config", "objective", "positions", "lengths", "draft_kind")
    DRAFT_CONFIG_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    DRAFT_KIND_FIELD_NUMBER: _ClassVar[int]
    draft_config: str
    objective: str
    positions: int
    lengths: _containers.RepeatedScalarFieldContainer[int]
    draft_kind: str
    def __init__(self, draft_config: _Optional[str] = ..., objective: _Optional[str] = ..., positions: _Optional[int] = ..., lengths: _Optional[_Iterable[int]] = ..., draft_kind: _Optional[str] = ...) -> None: ...

class ComputeResponse(_message.Message):
    __slots__ = ("accepted", "result", "gradient")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_FIELD_NUMBER: _ClassVar[int]
    accepted: Accepted
    result: Result
    gradient: bytes
    def __init__(self, accepted: _Optional[_Union[Accepted, _Mapping]] = ..., result: _Optional[_Union[Result, _Mapping]] = ..., gradient: _Optional[bytes] = ...) -> None: ...

class Accepted(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Result(_message.Message):
    __slots__ = ("loss", "acceptance")
    LOSS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTANCE_FIELD_NUMBER: _ClassVar[int]
    loss: float
    acceptance: float
    def __init__(self, loss: _Optional[float] = ..., acceptance: _Optional[float] = ...) -> None: ...
