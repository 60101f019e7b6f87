from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JudgedDraft(_message.Message):
    __slots__ = ("digest", "uri")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    digest: str
    uri: str
    def __init__(self, digest: _Optional[str] = ..., uri: _Optional[str] = ...) -> None: ...

class ListScoresRequest(_message.Message):
    __slots__ = ("stable", "candidate", "after", "limit", "greedy_drafts", "speculation_length", "begin", "any_shape")
    STABLE_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    GREEDY_DRAFTS_FIELD_NUMBER: _ClassVar[int]
    SPECULATION_LENGTH_FIELD_NUMBER: _ClassVar[int]
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    ANY_SHAPE_FIELD_NUMBER: _ClassVar[int]
    stable: JudgedDraft
    candidate: JudgedDraft
    after: str
    limit: int
    greedy_drafts: bool
    speculation_length: int
    begin: str
    any_shape: bool
    def __init__(self, stable: _Optional[_Union[JudgedDraft, _Mapping]] = ..., candidate: _Optional[_Union[JudgedDraft, _Mapping]] = ..., after: _Optional[str] = ..., limit: _Optional[int] = ..., greedy_drafts: _Optional[bool] = ..., speculation_length: _Optional[int] = ..., begin: _Optional[str] = ..., any_shape: _Optional[bool] = ...) -> None: ...

class Score(_message.Message):
    __slots__ = ("id", "domain", "output_tokens", "stable_steps", "candidate_steps", "shapes_differ")
    ID_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STABLE_STEPS_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_STEPS_FIELD_NUMBER: _ClassVar[int]
    SHAPES_DIFFER_FIELD_NUMBER: _ClassVar[int]
    id: str
    domain: str
    output_tokens: int
    stable_steps: float
    candidate_steps: float
    shapes_differ: bool
    def __init__(self, id: _Optional[str] = ..., domain: _Optional[str] = ..., output_tokens: _Optional[int] = ..., stable_steps: _Optional[float] = ..., candidate_steps: _Optional[float] = ..., shapes_differ: _Optional[bool] = ...) -> None: ...

class ListScoresResponse(_message.Message):
    __slots__ = ("scores", "next_after", "refusal", "agreements")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    NEXT_AFTER_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    AGREEMENTS_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.RepeatedCompositeFieldContainer[Score]
    next_after: str
    refusal: str
    agreements: _containers.RepeatedCompositeFieldContainer[Agreement]
    def __init__(self, scores: _Optional[_Iterable[_Union[Score, _Mapping]]] = ..., next_after: _Optional[str] = ..., refusal: _Optional[str] = ..., agreements: _Optional[_Iterable[_Union[Agreement, _Mapping]]] = ...) -> None: ...

class Agreement(_message.Message):
    __slots__ = ("digest", "requests", "tested_tokens", "accepted_tokens", "predicted_tokens", "variance")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    TESTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    VARIANCE_FIELD_NUMBER: _ClassVar[int]
    digest: str
    requests: int
    tested_tokens: int
    accepted_tokens: int
    predicted_tokens: float
    variance: float
    def __init__(self, digest: _Optional[str] = ..., requests: _Optional[int] = ..., tested_tokens: _Optional[int] = ..., accepted_tokens: _Optional[int] = ..., predicted_tokens: _Optional[float] = ..., variance: _Optional[float] = ...) -> None: ...
