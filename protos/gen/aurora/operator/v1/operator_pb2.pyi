from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetDeploymentRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchDeploymentRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Deployment(_message.Message):
    __slots__ = ("name", "namespace", "status_json", "components")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    STATUS_JSON_FIELD_NUMBER: _ClassVar[int]
    COMPONENTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    namespace: str
    status_json: str
    components: _containers.RepeatedCompositeFieldContainer[Component]
    def __init__(self, name: _Optional[str] = ..., namespace: _Optional[str] = ..., status_json: _Optional[str] = ..., components: _Optional[_Iterable[_Union[Component, _Mapping]]] = ...) -> None: ...

class Component(_message.Message):
    __slots__ = ("name", "pid", "ready", "restarts", "address", "log_path", "message")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    LOG_PATH_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    name: str
    pid: int
    ready: bool
    restarts: int
    address: str
    log_path: str
    message: str
    def __init__(self, name: _Optional[str] = ..., pid: _Optional[int] = ..., ready: _Optional[bool] = ..., restarts: _Optional[int] = ..., address: _Optional[str] = ..., log_path: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class CommandRolloutRequest(_message.Message):
    __slots__ = ("command", "rollout_id")
    class Command(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        COMMAND_UNSPECIFIED: _ClassVar[CommandRolloutRequest.Command]
        COMMAND_PAUSE: _ClassVar[CommandRolloutRequest.Command]
        COMMAND_RESUME: _ClassVar[CommandRolloutRequest.Command]
        COMMAND_ABORT: _ClassVar[CommandRolloutRequest.Command]
        COMMAND_PROMOTE: _ClassVar[CommandRolloutRequest.Command]
    COMMAND_UNSPECIFIED: CommandRolloutRequest.Command
    COMMAND_PAUSE: CommandRolloutRequest.Command
    COMMAND_RESUME: CommandRolloutRequest.Command
    COMMAND_ABORT: CommandRolloutRequest.Command
    COMMAND_PROMOTE: CommandRolloutRequest.Command
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_ID_FIELD_NUMBER: _ClassVar[int]
    command: CommandRolloutRequest.Command
    rollout_id: str
    def __init__(self, command: _Optional[_Union[CommandRolloutRequest.Command, str]] = ..., rollout_id: _Optional[str] = ...) -> None: ...

class CommandRolloutResponse(_message.Message):
    __slots__ = ("rollout_id", "state")
    ROLLOUT_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    rollout_id: str
    state: str
    def __init__(self, rollout_id: _Optional[str] = ..., state: _Optional[str] = ...) -> None: ...

class ListDraftsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListDraftsResponse(_message.Message):
    __slots__ = ("drafts",)
    DRAFTS_FIELD_NUMBER: _ClassVar[int]
    drafts: _containers.RepeatedCompositeFieldContainer[Draft]
    def __init__(self, drafts: _Optional[_Iterable[_Union[Draft, _Mapping]]] = ...) -> None: ...

class Draft(_message.Message):
    __slots__ = ("name", "digest", "parent_digest", "trained_through", "role", "outcome", "published_at_ms", "acceptance")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    PARENT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TRAINED_THROUGH_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTANCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    digest: str
    parent_digest: str
    trained_through: str
    role: str
    outcome: str
    published_at_ms: int
    acceptance: float
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[str] = ..., parent_digest: _Optional[str] = ..., trained_through: _Optional[str] = ..., role: _Optional[str] = ..., outcome: _Optional[str] = ..., published_at_ms: _Optional[int] = ..., acceptance: _Optional[float] = ...) -> None: ...
