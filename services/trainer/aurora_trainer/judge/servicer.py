"""aurora.trainer.v1.Judge: the comparison of two drafts, a page at a time."""

from __future__ import annotations

import re
from typing import Any, TypeAlias

import grpc

from aurora.trainer.v1 import judge_pb2, judge_pb2_grpc
from aurora_common.errors import InvalidInputError
from aurora_common.store.model_store import model_uri
from aurora_trainer.judge.comparison import JudgedDraft, Pair, Score
from aurora_trainer.judge.judge import KEPT_SCORES, Judge
from aurora_trainer.judge.parity import Agreement

JUDGE_SERVICE = "aurora.trainer.v1.Judge"

DEFAULT_LIMIT = 256
MAX_LIMIT = KEPT_SCORES
MAX_SPECULATION_LENGTH = 64

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ID = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")
_MAX_ID_PART = 2**64 - 1

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class JudgeServicer(judge_pb2_grpc.JudgeServicer):
    """Checks what is asked of the judge."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    async def ListScores(  # noqa: N802 - the name in the protocol
        self, request: judge_pb2.ListScoresRequest, context: Context
    ) -> judge_pb2.ListScoresResponse:
        pair = Pair(
            stable=_draft(request.stable, what="stable"),
            candidate=_draft(request.candidate, what="candidate"),
            greedy_drafts=request.greedy_drafts,
            speculation_length=request.speculation_length,
            any_shape=request.any_shape,
        )
        for name, value, most in (
            ("limit", request.limit, MAX_LIMIT),
            ("speculation_length", request.speculation_length, MAX_SPECULATION_LENGTH),
        ):
            if value > most:
                raise InvalidInputError(f"{name} is {value}: allowed is at most {most}")
        answer = self._judge.list_scores(
            pair,
            begin=_position("begin", request.begin),
            after=_position("after", request.after),
            limit=request.limit or DEFAULT_LIMIT,
        )
        return judge_pb2.ListScoresResponse(
            scores=[_message(score) for score in answer.scores],
            next_after=answer.next_after,
            refusal=answer.refusal,
            agreements=[_agreement(each) for each in answer.agreements],
        )


def _draft(message: judge_pb2.JudgedDraft, *, what: str) -> JudgedDraft:
    if not _DIGEST.fullmatch(message.digest):
        raise InvalidInputError(
            f"{what}.digest is {message.digest!r}: allowed is sha256:<64 hex digits>"
        )
    if not message.uri:
        raise InvalidInputError(f"{what}.uri is empty: it says where the draft is")
    return JudgedDraft(message.digest, model_uri(message.uri))


def _position(name: str, value: str) -> str:
    parts = value.split("-") if value else []
    if value and not (_ID.fullmatch(value) and all(int(part) <= _MAX_ID_PART for part in parts)):
        raise InvalidInputError(
            f"{name} is {value!r}: allowed is a stream id, <milliseconds>-<sequence>, or nothing"
        )
    return value


def _message(score: Score) -> judge_pb2.Score:
    return judge_pb2.Score(
        id=score.id,
        domain=score.domain,
        output_tokens=score.output_tokens,
        stable_steps=score.stable_steps,
        candidate_steps=score.candidate_steps,
        shapes_differ=score.shapes_differ,
    )


def _agreement(agreement: Agreement) -> judge_pb2.Agreement:
    return judge_pb2.Agreement(
        digest=agreement.digest,
        requests=agreement.requests,
        tested_tokens=agreement.tested,
        accepted_tokens=agreement.accepted,
        predicted_tokens=agreement.predicted,
        variance=agreement.variance,
    )
