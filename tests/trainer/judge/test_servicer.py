"""What may be asked of the judge."""

from __future__ import annotations

import re

import pytest

from aurora.trainer.v1 import judge_pb2
from aurora_common.errors import InvalidInputError
from aurora_trainer.judge.comparison import JudgedDraft, Pair, Score
from aurora_trainer.judge.judge import Scores
from aurora_trainer.judge.parity import Agreement
from aurora_trainer.judge.servicer import JudgeServicer

STABLE = judge_pb2.JudgedDraft(digest=f"sha256:{'a' * 64}", uri="file:///models/stable")
CANDIDATE = judge_pb2.JudgedDraft(digest=f"sha256:{'b' * 64}", uri="pvc://models/candidate")


class Heard:
    """A judge that writes down what it is asked."""

    def __init__(self, answer=None):
        self.answer = answer or Scores((), "", "")
        self.asked = None

    def list_scores(self, pair, *, begin, after, limit):
        self.asked = (pair, begin, after, limit)
        return self.answer


async def ask(judge, **fields):
    fields = {"stable": STABLE, "candidate": CANDIDATE} | fields
    return await JudgeServicer(judge).ListScores(judge_pb2.ListScoresRequest(**fields), None)


async def refusal(**fields):
    judge = Heard()
    with pytest.raises(InvalidInputError) as refused:
        await ask(judge, **fields)
    assert judge.asked is None
    return str(refused.value)


async def test_a_question_and_its_answer():
    score = Score("7-1", "chat", 200, stable_steps=80.5, candidate_steps=75.25)
    agreement = Agreement("sha256:a", 2, tested=9, accepted=3, predicted=4.5, variance=2.0)
    judge = Heard(Scores((score,), next_after="7-1", refusal="", agreements=(agreement,)))
    response = await ask(
        judge, begin="4-0", after="5-0", limit=9, greedy_drafts=True, speculation_length=6
    )
    pair = Pair(
        JudgedDraft(STABLE.digest, STABLE.uri),
        JudgedDraft(CANDIDATE.digest, CANDIDATE.uri),
        greedy_drafts=True,
        speculation_length=6,
    )
    assert judge.asked == (pair, "4-0", "5-0", 9)
    assert response == judge_pb2.ListScoresResponse(
        scores=[
            judge_pb2.Score(
                id="7-1", domain="chat", output_tokens=200, stable_steps=80.5, candidate_steps=75.25
            )
        ],
        next_after="7-1",
        agreements=[
            judge_pb2.Agreement(
                digest="sha256:a",
                requests=2,
                tested_tokens=9,
                accepted_tokens=3,
                predicted_tokens=4.5,
                variance=2.0,
            )
        ],
    )


async def test_a_refusal_is_part_of_the_answer():
    response = await ask(Heard(Scores((), "5-0", "their shapes differ")), after="5-0")
    assert (response.refusal, response.next_after) == ("their shapes differ", "5-0")


async def test_what_may_be_left_out():
    judge = Heard()
    await ask(judge)
    _, begin, after, limit = judge.asked
    assert (begin, after, limit) == ("", "", 256)


@pytest.mark.parametrize("name", ["stable", "candidate"])
async def test_a_draft_is_named_by_digest_and_uri(name):
    for digest in ("", "sha256:abc", f"md5:{'a' * 64}", f"sha256:{'A' * 64}"):
        draft = judge_pb2.JudgedDraft(digest=digest, uri=STABLE.uri)
        assert f"{name}.digest is {digest!r}: allowed is" in await refusal(**{name: draft})
    draft = judge_pb2.JudgedDraft(digest=STABLE.digest)
    assert f"{name}.uri is empty" in await refusal(**{name: draft})
    assert f"{name}.digest is ''" in await refusal(**{name: None})


@pytest.mark.parametrize("name", ["begin", "after"])
@pytest.mark.parametrize("value", ["1", "-", "a-b", "1-1-1", f"1-{2**64}", "$"])
async def test_a_position_is_a_stream_id(name, value):
    found = await refusal(**{name: value})
    assert re.match(f"{name} is {re.escape(repr(value))}: allowed is", found)


async def test_a_speculation_length_is_bounded():
    found = await refusal(speculation_length=65)
    assert found == "speculation_length is 65: allowed is at most 64"


async def test_a_limit_is_bounded():
    assert await refusal(limit=4097) == "limit is 4097: allowed is at most 4096"
    judge = Heard()
    await ask(judge, limit=4096)
    assert judge.asked[3] == 4096
