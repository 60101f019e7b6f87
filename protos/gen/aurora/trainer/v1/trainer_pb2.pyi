from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WatchCheckpointsRequest(_message.Message):
    __slots__ = ("after_sequence",)
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    after_sequence: int
    def __init__(self, after_sequence: _Optional[int] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("sequence", "name", "digest", "uri", "parent_digest", "trained_through", "trajectories", "loss", "acceptance", "published_at_ms")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    PARENT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TRAINED_THROUGH_FIELD_NUMBER: _ClassVar[int]
    TRAJECTORIES_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTANCE_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    name: str
    digest: str
    uri: str
    parent_digest: str
    trained_through: str
    trajectories: int
    loss: float
    acceptance: float
    published_at_ms: int
    def __init__(self, sequence: _Optional[int] = ..., name: _Optional[str] = ..., digest: _Optional[str] = ..., uri: _Optional[str] = ..., parent_digest: _Optional[str] = ..., trained_through: _Optional[str] = ..., trajectories: _Optional[int] = ..., loss: _Optional[float] = ..., acceptance: _Optional[float] = ..., published_at_ms: _Optional[int] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("phase", "trajectories", "new_trajectories", "stream_position", "optimizer_steps", "published", "loss", "training_seconds", "replicas", "min_new_trajectories", "steps_per_round", "steps_left", "eta_seconds", "checkpoint", "acceptance", "problem", "withheld", "restorable", "waiting", "max_share_percent", "training_share", "pause_seconds", "skipped")
    class SkippedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    PHASE_FIELD_NUMBER: _ClassVar[int]
    TRAJECTORIES_FIELD_NUMBER: _ClassVar[int]
    NEW_TRAJECTORIES_FIELD_NUMBER: _ClassVar[int]
    STREAM_POSITION_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_STEPS_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    TRAINING_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    MIN_NEW_TRAJECTORIES_FIELD_NUMBER: _ClassVar[int]
    STEPS_PER_ROUND_FIELD_NUMBER: _ClassVar[int]
    STEPS_LEFT_FIELD_NUMBER: _ClassVar[int]
    ETA_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    ACCEPTANCE_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    WITHHELD_FIELD_NUMBER: _ClassVar[int]
    RESTORABLE_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    MAX_SHARE_PERCENT_FIELD_NUMBER: _ClassVar[int]
    TRAINING_SHARE_FIELD_NUMBER: _ClassVar[int]
    PAUSE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    phase: str
    trajectories: int
    new_trajectories: int
    stream_position: str
    optimizer_steps: int
    published: int
    loss: float
    training_seconds: float
    replicas: int
    min_new_trajectories: int
    steps_per_round: int
    steps_left: int
    eta_seconds: float
    checkpoint: str
    acceptance: float
    problem: str
    withheld: str
    restorable: Restorable
    waiting: str
    max_share_percent: int
    training_share: float
    pause_seconds: float
    skipped: _containers.ScalarMap[str, int]
    def __init__(self, phase: _Optional[str] = ..., trajectories: _Optional[int] = ..., new_trajectories: _Optional[int] = ..., stream_position: _Optional[str] = ..., optimizer_steps: _Optional[int] = ..., published: _Optional[int] = ..., loss: _Optional[float] = ..., training_seconds: _Optional[float] = ..., replicas: _Optional[int] = ..., min_new_trajectories: _Optional[int] = ..., steps_per_round: _Optional[int] = ..., steps_left: _Optional[int] = ..., eta_seconds: _Optional[float] = ..., checkpoint: _Optional[str] = ..., acceptance: _Optional[float] = ..., problem: _Optional[str] = ..., withheld: _Optional[str] = ..., restorable: _Optional[_Union[Restorable, _Mapping]] = ..., waiting: _Optional[str] = ..., max_share_percent: _Optional[int] = ..., training_share: _Optional[float] = ..., pause_seconds: _Optional[float] = ..., skipped: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Restorable(_message.Message):
    __slots__ = ("draft", "seen_sequence", "attempts")
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    SEEN_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    draft: Checkpoint
    seen_sequence: int
    attempts: int
    def __init__(self, draft: _Optional[_Union[Checkpoint, _Mapping]] = ..., seen_sequence: _Optional[int] = ..., attempts: _Optional[int] = ...) -> None: ...

class PruneCheckpointsRequest(_message.Message):
    __slots__ = ("keep", "needed_digests", "seen_sequence", "stable_digest", "stable_uri", "verdicts", "record_stable", "attempts")
    KEEP_FIELD_NUMBER: _ClassVar[int]
    NEEDED_DIGESTS_FIELD_NUMBER: _ClassVar[int]
    SEEN_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STABLE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    STABLE_URI_FIELD_NUMBER: _ClassVar[int]
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    RECORD_STABLE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    keep: int
    needed_digests: _containers.RepeatedScalarFieldContainer[str]
    seen_sequence: int
    stable_digest: str
    stable_uri: str
    verdicts: _containers.RepeatedCompositeFieldContainer[Verdict]
    record_stable: bool
    attempts: int
    def __init__(self, keep: _Optional[int] = ..., needed_digests: _Optional[_Iterable[str]] = ..., seen_sequence: _Optional[int] = ..., stable_digest: _Optional[str] = ..., stable_uri: _Optional[str] = ..., verdicts: _Optional[_Iterable[_Union[Verdict, _Mapping]]] = ..., record_stable: _Optional[bool] = ..., attempts: _Optional[int] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("rollout_id", "digest", "outcome", "reason", "effect_bps", "saved_bps", "at_ms")
    ROLLOUT_ID_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EFFECT_BPS_FIELD_NUMBER: _ClassVar[int]
    SAVED_BPS_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    rollout_id: str
    digest: str
    outcome: str
    reason: str
    effect_bps: int
    saved_bps: int
    at_ms: int
    def __init__(self, rollout_id: _Optional[str] = ..., digest: _Optional[str] = ..., outcome: _Optional[str] = ..., reason: _Optional[str] = ..., effect_bps: _Optional[int] = ..., saved_bps: _Optional[int] = ..., at_ms: _Optional[int] = ...) -> None: ...

class PruneCheckpointsResponse(_message.Message):
    __slots__ = ("removed",)
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    removed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, removed: _Optional[_Iterable[str]] = ...) -> None: ...

class KeepRolloutRecordRequest(_message.Message):
    __slots__ = ("name", "content")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    name: str
    content: bytes
    def __init__(self, name: _Optional[str] = ..., content: _Optional[bytes] = ...) -> None: ...

class KeepRolloutRecordResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
