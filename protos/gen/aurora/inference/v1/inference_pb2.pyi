from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Slot(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SLOT_UNSPECIFIED: _ClassVar[Slot]
    SLOT_STABLE: _ClassVar[Slot]
    SLOT_CANDIDATE: _ClassVar[Slot]
    SLOT_RETAINED: _ClassVar[Slot]
SLOT_UNSPECIFIED: Slot
SLOT_STABLE: Slot
SLOT_CANDIDATE: Slot
SLOT_RETAINED: Slot

class GenerateRequest(_message.Message):
    __slots__ = ("model", "prompt", "prompt_tokens", "max_tokens", "temperature", "top_p", "top_k", "seed", "stop", "ignore_eos", "tenant", "domain", "no_train")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    IGNORE_EOS_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    NO_TRAIN_FIELD_NUMBER: _ClassVar[int]
    model: str
    prompt: str
    prompt_tokens: TokenIds
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    seed: int
    stop: _containers.RepeatedScalarFieldContainer[str]
    ignore_eos: bool
    tenant: str
    domain: str
    no_train: bool
    def __init__(self, model: _Optional[str] = ..., prompt: _Optional[str] = ..., prompt_tokens: _Optional[_Union[TokenIds, _Mapping]] = ..., max_tokens: _Optional[int] = ..., temperature: _Optional[float] = ..., top_p: _Optional[float] = ..., top_k: _Optional[int] = ..., seed: _Optional[int] = ..., stop: _Optional[_Iterable[str]] = ..., ignore_eos: _Optional[bool] = ..., tenant: _Optional[str] = ..., domain: _Optional[str] = ..., no_train: _Optional[bool] = ...) -> None: ...

class TokenIds(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ids: _Optional[_Iterable[int]] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("request_id", "text", "token_ids", "finish_reason", "usage", "speculation")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    SPECULATION_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    text: str
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    finish_reason: str
    usage: Usage
    speculation: Speculation
    def __init__(self, request_id: _Optional[str] = ..., text: _Optional[str] = ..., token_ids: _Optional[_Iterable[int]] = ..., finish_reason: _Optional[str] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., speculation: _Optional[_Union[Speculation, _Mapping]] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("prompt_tokens", "completion_tokens")
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    prompt_tokens: int
    completion_tokens: int
    def __init__(self, prompt_tokens: _Optional[int] = ..., completion_tokens: _Optional[int] = ...) -> None: ...

class Speculation(_message.Message):
    __slots__ = ("draft", "draft_digest", "arm", "steps", "drafted_tokens", "accepted_tokens", "ngram_drafted_tokens", "ngram_accepted_tokens")
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    DRAFT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    DRAFTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NGRAM_DRAFTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NGRAM_ACCEPTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    draft: str
    draft_digest: str
    arm: str
    steps: int
    drafted_tokens: int
    accepted_tokens: int
    ngram_drafted_tokens: int
    ngram_accepted_tokens: int
    def __init__(self, draft: _Optional[str] = ..., draft_digest: _Optional[str] = ..., arm: _Optional[str] = ..., steps: _Optional[int] = ..., drafted_tokens: _Optional[int] = ..., accepted_tokens: _Optional[int] = ..., ngram_drafted_tokens: _Optional[int] = ..., ngram_accepted_tokens: _Optional[int] = ...) -> None: ...

class Draft(_message.Message):
    __slots__ = ("name", "digest", "uri")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    name: str
    digest: str
    uri: str
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[str] = ..., uri: _Optional[str] = ...) -> None: ...

class StageDraftRequest(_message.Message):
    __slots__ = ("slot", "draft")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    slot: Slot
    draft: Draft
    def __init__(self, slot: _Optional[_Union[Slot, str]] = ..., draft: _Optional[_Union[Draft, _Mapping]] = ...) -> None: ...

class StageDraftResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UnstageDraftRequest(_message.Message):
    __slots__ = ("digest",)
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    digest: str
    def __init__(self, digest: _Optional[str] = ...) -> None: ...

class UnstageDraftResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PromoteDraftRequest(_message.Message):
    __slots__ = ("digest",)
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    digest: str
    def __init__(self, digest: _Optional[str] = ...) -> None: ...

class PromoteDraftResponse(_message.Message):
    __slots__ = ("pause_microseconds",)
    PAUSE_MICROSECONDS_FIELD_NUMBER: _ClassVar[int]
    pause_microseconds: int
    def __init__(self, pause_microseconds: _Optional[int] = ...) -> None: ...

class SetTrafficRequest(_message.Message):
    __slots__ = ("rollout_id", "candidate_bps", "crossed")
    ROLLOUT_ID_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_BPS_FIELD_NUMBER: _ClassVar[int]
    CROSSED_FIELD_NUMBER: _ClassVar[int]
    rollout_id: str
    candidate_bps: int
    crossed: bool
    def __init__(self, rollout_id: _Optional[str] = ..., candidate_bps: _Optional[int] = ..., crossed: _Optional[bool] = ...) -> None: ...

class SetTrafficResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListOutcomesRequest(_message.Message):
    __slots__ = ("rollout_id", "instance", "after", "limit")
    ROLLOUT_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    rollout_id: str
    instance: str
    after: int
    limit: int
    def __init__(self, rollout_id: _Optional[str] = ..., instance: _Optional[str] = ..., after: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("sequence", "arm", "candidate_bps", "drafted_tokens", "accepted_tokens", "time_per_output_token_us", "stable_digest", "candidate_digest", "ending", "pair", "requests", "failed_requests", "time_to_first_token_us", "step_time_us", "stable_step_time_us")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_BPS_FIELD_NUMBER: _ClassVar[int]
    DRAFTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TIME_PER_OUTPUT_TOKEN_US_FIELD_NUMBER: _ClassVar[int]
    STABLE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ENDING_FIELD_NUMBER: _ClassVar[int]
    PAIR_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    FAILED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_FIRST_TOKEN_US_FIELD_NUMBER: _ClassVar[int]
    STEP_TIME_US_FIELD_NUMBER: _ClassVar[int]
    STABLE_STEP_TIME_US_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    arm: str
    candidate_bps: int
    drafted_tokens: int
    accepted_tokens: int
    time_per_output_token_us: int
    stable_digest: str
    candidate_digest: str
    ending: str
    pair: int
    requests: int
    failed_requests: int
    time_to_first_token_us: int
    step_time_us: int
    stable_step_time_us: int
    def __init__(self, sequence: _Optional[int] = ..., arm: _Optional[str] = ..., candidate_bps: _Optional[int] = ..., drafted_tokens: _Optional[int] = ..., accepted_tokens: _Optional[int] = ..., time_per_output_token_us: _Optional[int] = ..., stable_digest: _Optional[str] = ..., candidate_digest: _Optional[str] = ..., ending: _Optional[str] = ..., pair: _Optional[int] = ..., requests: _Optional[int] = ..., failed_requests: _Optional[int] = ..., time_to_first_token_us: _Optional[int] = ..., step_time_us: _Optional[int] = ..., stable_step_time_us: _Optional[int] = ...) -> None: ...

class ListOutcomesResponse(_message.Message):
    __slots__ = ("instance", "outcomes", "next_after", "unlisted_stable", "unlisted_candidate")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    NEXT_AFTER_FIELD_NUMBER: _ClassVar[int]
    UNLISTED_STABLE_FIELD_NUMBER: _ClassVar[int]
    UNLISTED_CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    instance: str
    outcomes: _containers.RepeatedCompositeFieldContainer[Outcome]
    next_after: int
    unlisted_stable: int
    unlisted_candidate: int
    def __init__(self, instance: _Optional[str] = ..., outcomes: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ..., next_after: _Optional[int] = ..., unlisted_stable: _Optional[int] = ..., unlisted_candidate: _Optional[int] = ...) -> None: ...

class GetCountersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ArmCounters(_message.Message):
    __slots__ = ("arm", "requests", "failed_requests", "verify_steps", "drafted_tokens", "accepted_tokens", "output_tokens", "drafting_time_us")
    ARM_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    FAILED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    VERIFY_STEPS_FIELD_NUMBER: _ClassVar[int]
    DRAFTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DRAFTING_TIME_US_FIELD_NUMBER: _ClassVar[int]
    arm: str
    requests: int
    failed_requests: int
    verify_steps: int
    drafted_tokens: int
    accepted_tokens: int
    output_tokens: int
    drafting_time_us: int
    def __init__(self, arm: _Optional[str] = ..., requests: _Optional[int] = ..., failed_requests: _Optional[int] = ..., verify_steps: _Optional[int] = ..., drafted_tokens: _Optional[int] = ..., accepted_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., drafting_time_us: _Optional[int] = ...) -> None: ...

class NgramCounters(_message.Message):
    __slots__ = ("verify_steps", "drafted_tokens", "accepted_tokens")
    VERIFY_STEPS_FIELD_NUMBER: _ClassVar[int]
    DRAFTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    verify_steps: int
    drafted_tokens: int
    accepted_tokens: int
    def __init__(self, verify_steps: _Optional[int] = ..., drafted_tokens: _Optional[int] = ..., accepted_tokens: _Optional[int] = ...) -> None: ...

class GetCountersResponse(_message.Message):
    __slots__ = ("instance", "arms", "trajectories_sent", "trajectories_dropped", "running_requests", "waiting_requests", "ngram")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    ARMS_FIELD_NUMBER: _ClassVar[int]
    TRAJECTORIES_SENT_FIELD_NUMBER: _ClassVar[int]
    TRAJECTORIES_DROPPED_FIELD_NUMBER: _ClassVar[int]
    RUNNING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    WAITING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    NGRAM_FIELD_NUMBER: _ClassVar[int]
    instance: str
    arms: _containers.RepeatedCompositeFieldContainer[ArmCounters]
    trajectories_sent: int
    trajectories_dropped: int
    running_requests: int
    waiting_requests: int
    ngram: NgramCounters
    def __init__(self, instance: _Optional[str] = ..., arms: _Optional[_Iterable[_Union[ArmCounters, _Mapping]]] = ..., trajectories_sent: _Optional[int] = ..., trajectories_dropped: _Optional[int] = ..., running_requests: _Optional[int] = ..., waiting_requests: _Optional[int] = ..., ngram: _Optional[_Union[NgramCounters, _Mapping]] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("instance", "model", "target_digest", "tokenizer_digest", "stable", "candidate", "rollout_id", "candidate_bps", "speculation_length", "max_context_tokens", "problems", "retained", "device")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TARGET_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_DIGEST_FIELD_NUMBER: _ClassVar[int]
    STABLE_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_ID_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_BPS_FIELD_NUMBER: _ClassVar[int]
    SPECULATION_LENGTH_FIELD_NUMBER: _ClassVar[int]
    MAX_CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    RETAINED_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    instance: str
    model: str
    target_digest: str
    tokenizer_digest: str
    stable: Draft
    candidate: Draft
    rollout_id: str
    candidate_bps: int
    speculation_length: int
    max_context_tokens: int
    problems: _containers.RepeatedCompositeFieldContainer[Problem]
    retained: _containers.RepeatedCompositeFieldContainer[RetainedDraft]
    device: str
    def __init__(self, instance: _Optional[str] = ..., model: _Optional[str] = ..., target_digest: _Optional[str] = ..., tokenizer_digest: _Optional[str] = ..., stable: _Optional[_Union[Draft, _Mapping]] = ..., candidate: _Optional[_Union[Draft, _Mapping]] = ..., rollout_id: _Optional[str] = ..., candidate_bps: _Optional[int] = ..., speculation_length: _Optional[int] = ..., max_context_tokens: _Optional[int] = ..., problems: _Optional[_Iterable[_Union[Problem, _Mapping]]] = ..., retained: _Optional[_Iterable[_Union[RetainedDraft, _Mapping]]] = ..., device: _Optional[str] = ...) -> None: ...

class RetainedDraft(_message.Message):
    __slots__ = ("draft", "share_bps")
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    SHARE_BPS_FIELD_NUMBER: _ClassVar[int]
    draft: Draft
    share_bps: int
    def __init__(self, draft: _Optional[_Union[Draft, _Mapping]] = ..., share_bps: _Optional[int] = ...) -> None: ...

class Problem(_message.Message):
    __slots__ = ("reason", "message")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...
