from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Trajectory(_message.Message):
    __slots__ = ("request_id", "tenant", "domain", "target_digest", "tokenizer_digest", "draft_digest", "arm", "sampling", "prompt_tokens", "output_tokens", "target", "steps", "finished_at_ms", "admission")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    TARGET_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_DIGEST_FIELD_NUMBER: _ClassVar[int]
    DRAFT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    FINISHED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    ADMISSION_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    tenant: str
    domain: str
    target_digest: str
    tokenizer_digest: str
    draft_digest: str
    arm: str
    sampling: Sampling
    prompt_tokens: _containers.RepeatedScalarFieldContainer[int]
    output_tokens: _containers.RepeatedScalarFieldContainer[int]
    target: TargetDistributions
    steps: _containers.RepeatedCompositeFieldContainer[VerifyStep]
    finished_at_ms: int
    admission: Admission
    def __init__(self, request_id: _Optional[str] = ..., tenant: _Optional[str] = ..., domain: _Optional[str] = ..., target_digest: _Optional[str] = ..., tokenizer_digest: _Optional[str] = ..., draft_digest: _Optional[str] = ..., arm: _Optional[str] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., prompt_tokens: _Optional[_Iterable[int]] = ..., output_tokens: _Optional[_Iterable[int]] = ..., target: _Optional[_Union[TargetDistributions, _Mapping]] = ..., steps: _Optional[_Iterable[_Union[VerifyStep, _Mapping]]] = ..., finished_at_ms: _Optional[int] = ..., admission: _Optional[_Union[Admission, _Mapping]] = ...) -> None: ...

class Admission(_message.Message):
    __slots__ = ("engine", "at_us", "open_since_us")
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    AT_US_FIELD_NUMBER: _ClassVar[int]
    OPEN_SINCE_US_FIELD_NUMBER: _ClassVar[int]
    engine: str
    at_us: int
    open_since_us: int
    def __init__(self, engine: _Optional[str] = ..., at_us: _Optional[int] = ..., open_since_us: _Optional[int] = ...) -> None: ...

class Sampling(_message.Message):
    __slots__ = ("temperature", "top_p", "top_k", "seed")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_p: float
    top_k: int
    seed: int
    def __init__(self, temperature: _Optional[float] = ..., top_p: _Optional[float] = ..., top_k: _Optional[int] = ..., seed: _Optional[int] = ...) -> None: ...

class TargetDistributions(_message.Message):
    __slots__ = ("k", "token_ids", "log_probs", "tail_mass")
    K_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBS_FIELD_NUMBER: _ClassVar[int]
    TAIL_MASS_FIELD_NUMBER: _ClassVar[int]
    k: int
    token_ids: bytes
    log_probs: bytes
    tail_mass: bytes
    def __init__(self, k: _Optional[int] = ..., token_ids: _Optional[bytes] = ..., log_probs: _Optional[bytes] = ..., tail_mass: _Optional[bytes] = ...) -> None: ...

class VerifyStep(_message.Message):
    __slots__ = ("drafted", "accepted", "batch_size", "microseconds", "ngram_drafted", "ngram_accepted", "by_other", "draft_digest")
    DRAFTED_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    MICROSECONDS_FIELD_NUMBER: _ClassVar[int]
    NGRAM_DRAFTED_FIELD_NUMBER: _ClassVar[int]
    NGRAM_ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    BY_OTHER_FIELD_NUMBER: _ClassVar[int]
    DRAFT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    drafted: int
    accepted: int
    batch_size: int
    microseconds: int
    ngram_drafted: int
    ngram_accepted: int
    by_other: bool
    draft_digest: str
    def __init__(self, drafted: _Optional[int] = ..., accepted: _Optional[int] = ..., batch_size: _Optional[int] = ..., microseconds: _Optional[int] = ..., ngram_drafted: _Optional[int] = ..., ngram_accepted: _Optional[int] = ..., by_other: _Optional[bool] = ..., draft_digest: _Optional[str] = ...) -> None: ...

class AppendRequest(_message.Message):
    __slots__ = ("trajectories",)
    TRAJECTORIES_FIELD_NUMBER: _ClassVar[int]
    trajectories: _containers.RepeatedCompositeFieldContainer[Trajectory]
    def __init__(self, trajectories: _Optional[_Iterable[_Union[Trajectory, _Mapping]]] = ...) -> None: ...

class AppendResponse(_message.Message):
    __slots__ = ("appended", "last_id")
    APPENDED_FIELD_NUMBER: _ClassVar[int]
    LAST_ID_FIELD_NUMBER: _ClassVar[int]
    appended: int
    last_id: str
    def __init__(self, appended: _Optional[int] = ..., last_id: _Optional[str] = ...) -> None: ...

class SubscribeRequest(_message.Message):
    __slots__ = ("group", "consumer", "batch")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    group: str
    consumer: str
    batch: int
    def __init__(self, group: _Optional[str] = ..., consumer: _Optional[str] = ..., batch: _Optional[int] = ...) -> None: ...

class Entry(_message.Message):
    __slots__ = ("id", "trajectory")
    ID_FIELD_NUMBER: _ClassVar[int]
    TRAJECTORY_FIELD_NUMBER: _ClassVar[int]
    id: str
    trajectory: Trajectory
    def __init__(self, id: _Optional[str] = ..., trajectory: _Optional[_Union[Trajectory, _Mapping]] = ...) -> None: ...

class SubscribeResponse(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    def __init__(self, entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ...) -> None: ...

class AckRequest(_message.Message):
    __slots__ = ("group", "ids")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    group: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, group: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ...) -> None: ...

class AckResponse(_message.Message):
    __slots__ = ("acked",)
    ACKED_FIELD_NUMBER: _ClassVar[int]
    acked: int
    def __init__(self, acked: _Optional[int] = ...) -> None: ...

class ReadRequest(_message.Message):
    __slots__ = ("after", "limit")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    after: str
    limit: int
    def __init__(self, after: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class ReadResponse(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    def __init__(self, entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ...) -> None: ...

class GetStatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatsResponse(_message.Message):
    __slots__ = ("entries", "bytes", "first_id", "last_id", "appended_total", "groups")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    FIRST_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_ID_FIELD_NUMBER: _ClassVar[int]
    APPENDED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    entries: int
    bytes: int
    first_id: str
    last_id: str
    appended_total: int
    groups: _containers.RepeatedCompositeFieldContainer[Group]
    def __init__(self, entries: _Optional[int] = ..., bytes: _Optional[int] = ..., first_id: _Optional[str] = ..., last_id: _Optional[str] = ..., appended_total: _Optional[int] = ..., groups: _Optional[_Iterable[_Union[Group, _Mapping]]] = ...) -> None: ...

class Group(_message.Message):
    __slots__ = ("name", "consumers", "pending", "lag")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONSUMERS_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    name: str
    consumers: int
    pending: int
    lag: int
    def __init__(self, name: _Optional[str] = ..., consumers: _Optional[int] = ..., pending: _Optional[int] = ..., lag: _Optional[int] = ...) -> None: ...

class DeleteTenantRequest(_message.Message):
    __slots__ = ("tenant",)
    TENANT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    def __init__(self, tenant: _Optional[str] = ...) -> None: ...

class DeleteTenantResponse(_message.Message):
    __slots__ = ("deleted",)
    DELETED_FIELD_NUMBER: _ClassVar[int]
    deleted: int
    def __init__(self, deleted: _Optional[int] = ...) -> None: ...
