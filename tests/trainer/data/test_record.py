"""What is wrong with a trajectory is found before it is learnt from."""

from __future__ import annotations

import contextlib
import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurora.buffer.v1 import buffer_pb2
from aurora_trainer.data.packed import packed_samples, unpacked_samples
from aurora_trainer.data.record import (
    BareRecordError,
    ForeignRecordError,
    LongRecordError,
    MalformedRecordError,
    RecordFormat,
    sample_from,
    within_vocabulary,
)

FORMAT = RecordFormat("sha256:target", "sha256:tokenizer", vocab_size=10, max_tokens=100)


def sound_record() -> buffer_pb2.Trajectory:
    return buffer_pb2.Trajectory(
        request_id="r",
        domain="d",
        target_digest="sha256:target",
        tokenizer_digest="sha256:tokenizer",
        prompt_tokens=[1, 2, 3],
        output_tokens=[4, 5],
        target=buffer_pb2.TargetDistributions(
            k=2,
            token_ids=np.array([[4, 6], [5, 9]], "<u4").tobytes(),
            log_probs=np.log([[0.5, 0.25], [0.9, 0.1]]).astype("<f2").tobytes(),
            tail_mass=np.array([0.25, 0.0], "<f2").tobytes(),
        ),
    )


def test_a_sound_record_becomes_a_sample():
    sample = sample_from("7-1", sound_record(), FORMAT)
    assert (sample.stream_id, sample.request_id, sample.domain) == ("7-1", "r", "d")
    assert sample.tokens.tolist() == [1, 2, 3, 4, 5]
    assert sample.top_ids.tolist() == [[4, 6], [5, 9]]
    np.testing.assert_allclose(np.exp(sample.log_probs), [[0.5, 0.25], [0.9, 0.1]], rtol=1e-3)
    assert sample.tail_mass.tolist() == [0.25, 0.0]


@pytest.mark.parametrize(
    ("max_tokens", "tokens", "rows"),
    [(4, [2, 3, 4, 5], 2), (3, [3, 4, 5], 2), (2, [4, 5], 1)],
)
def test_a_long_record_keeps_its_end(max_tokens, tokens, rows):
    sample = sample_from("1-1", sound_record(), dataclasses.replace(FORMAT, max_tokens=max_tokens))
    assert sample.tokens.tolist() == tokens
    assert sample.top_ids.tolist() == [[4, 6], [5, 9]][-rows:]
    assert sample.output_count == rows


@pytest.mark.parametrize(("temperature", "is_greedy"), [(0.0, True), (0.7, False)])
def test_a_sample_knows_whether_it_was_served_greedily(temperature, is_greedy):
    record = sound_record()
    record.sampling.temperature = temperature
    sample = sample_from("1-1", record, FORMAT)
    assert sample.is_greedy is is_greedy
    packed = packed_samples([sample, dataclasses.replace(sample, is_greedy=False)])
    assert [each.is_greedy for each in unpacked_samples(packed)] == [is_greedy, False]
    # As an earlier version packed it.
    del packed["greedy"]
    assert [each.is_greedy for each in unpacked_samples(packed)] == [False, False]


def test_a_target_without_a_token_outside_its_top_is_sound():
    record = sound_record()
    record.target.log_probs = np.array([[0, -np.inf], [0, -np.inf]], "<f2").tobytes()
    record.target.tail_mass = bytes(4)
    assert sample_from("1-1", record, FORMAT).output_count == 2


def test_a_record_of_an_earlier_version_is_of_the_same_target():
    accepted = dataclasses.replace(
        FORMAT, target_digest="new", former_target_digest="sha256:target"
    )
    assert sample_from("1-1", sound_record(), accepted).output_count == 2
    with pytest.raises(ForeignRecordError, match="its target is sha256:target, ours is new"):
        sample_from("1-1", sound_record(), dataclasses.replace(FORMAT, target_digest="new"))


def test_tokens_that_the_draft_lacks_move_to_the_tail():
    sample = within_vocabulary(sample_from("1-1", sound_record(), FORMAT), 6)

    # Each row keeps as many entries as the one with the fewest below 6.
    assert sample.top_ids.tolist() == [[4], [5]]
    np.testing.assert_allclose(np.exp(sample.log_probs), [[0.5], [0.9]], rtol=1e-3)
    np.testing.assert_allclose(sample.tail_mass, [0.5, 0.1], rtol=1e-2)
    assert sample.tokens.tolist() == [1, 2, 3, 4, 5]


def test_known_entries_keep_their_order():
    record = sound_record()
    record.target.k = 3
    record.target.token_ids = np.array([[9, 1, 0], [2, 8, 3]], "<u4").tobytes()
    probs = [[0.5, 0.25, 0.125], [0.6, 0.3, 0.1]]
    record.target.log_probs = np.log(probs).astype("<f2").tobytes()
    record.target.tail_mass = np.array([0.125, 0.0], "<f2").tobytes()

    sample = within_vocabulary(sample_from("1-1", record, FORMAT), 5)

    assert sample.top_ids.tolist() == [[1, 0], [2, 3]]
    np.testing.assert_allclose(np.exp(sample.log_probs), [[0.25, 0.125], [0.6, 0.1]], rtol=1e-3)
    np.testing.assert_allclose(sample.tail_mass, [0.625, 0.3], rtol=1e-2)
    # The last token that the draft has stands for those in the context that it lacks.
    assert sample.tokens.tolist() == [1, 2, 3, 4, 4]


def test_a_sample_within_the_vocabulary_is_left_alone():
    sample = sample_from("1-1", sound_record(), FORMAT)
    assert within_vocabulary(sample, 10) is sample


def test_a_row_without_a_token_of_the_draft_is_refused():
    with pytest.raises(MalformedRecordError, match="no top-k token below 4"):
        within_vocabulary(sample_from("1-1", sound_record(), FORMAT), 4)


def _other_target(record):
    record.target_digest = "sha256:other"


def _other_tokenizer(record):
    record.tokenizer_digest = ""


@pytest.mark.parametrize("change", [_other_target, _other_tokenizer])
def test_a_foreign_record_is_refused(change):
    record = sound_record()
    change(record)
    with pytest.raises(ForeignRecordError, match="ours is sha256"):
        sample_from("1-1", record, FORMAT)


CORRUPTIONS = {
    "no prompt": lambda r: r.ClearField("prompt_tokens"),
    "no output": lambda r: r.ClearField("output_tokens"),
    "an empty target": lambda r: r.target.Clear(),
    "a row too few": lambda r: r.output_tokens.append(1),
    "k too large": lambda r: setattr(r.target, "k", 3),
    "k huge": lambda r: setattr(r.target, "k", 2**32 - 1),
    "ids cut off": lambda r: setattr(r.target, "token_ids", r.target.token_ids[:-1]),
    "prompt token": lambda r: r.prompt_tokens.append(10),
    "output token": lambda r: r.output_tokens.__setitem__(0, 10),
    "top-k token": lambda r: setattr(
        r.target, "token_ids", np.array([4, 10, 5, 9], "<u4").tobytes()
    ),
    "token twice": lambda r: setattr(
        r.target, "token_ids", np.array([4, 4, 5, 9], "<u4").tobytes()
    ),
    "nan": lambda r: setattr(
        r.target, "log_probs", np.array([np.nan, -1, -1, -1], "<f2").tobytes()
    ),
    "infinite": lambda r: setattr(
        r.target, "log_probs", np.array([np.inf, -1, -1, -1], "<f2").tobytes()
    ),
    "mass missing": lambda r: setattr(r.target, "tail_mass", bytes(4)),
    "negative tail": lambda r: setattr(r.target, "tail_mass", np.array([-0.1, 0], "<f2").tobytes()),
    "nan tail": lambda r: setattr(r.target, "tail_mass", np.array([np.nan, 0], "<f2").tobytes()),
}


@pytest.mark.parametrize("change", CORRUPTIONS.values(), ids=CORRUPTIONS.keys())
def test_a_malformed_record_is_refused(change):
    record = sound_record()
    change(record)
    with pytest.raises(MalformedRecordError):
        sample_from("1-1", record, FORMAT)


def test_a_record_of_token_ids_alone_is_not_malformed():
    record = sound_record()
    record.ClearField("target")
    with pytest.raises(BareRecordError, match="token ids alone"):
        sample_from("1-1", record, FORMAT)


@settings(deadline=None)
@given(
    k=st.integers(0, 2**32 - 1),
    token_ids=st.binary(max_size=40),
    log_probs=st.binary(max_size=20),
    tail_mass=st.binary(max_size=8),
)
def test_any_bytes_give_a_sample_or_a_refusal(k, token_ids, log_probs, tail_mass):
    record = sound_record()
    record.target.CopyFrom(
        buffer_pb2.TargetDistributions(
            k=k, token_ids=token_ids, log_probs=log_probs, tail_mass=tail_mass
        )
    )
    with contextlib.suppress(MalformedRecordError):
        sample_from("1-1", record, FORMAT)


def recomputed(max_tokens: int) -> RecordFormat:
    return dataclasses.replace(FORMAT, recomputed=True, max_tokens=max_tokens)


@pytest.mark.parametrize("is_bare", [False, True])
def test_what_is_recomputed_keeps_its_beginning(is_bare):
    record = sound_record()
    if is_bare:
        record.ClearField("target")
    sample = sample_from("7-1", record, recomputed(4))
    assert sample.tokens.tolist() == [1, 2, 3, 4]
    assert (sample.output_count, sample.top_ids.shape) == (1, (1, 0))


def test_a_prompt_that_is_too_long_to_recompute_is_refused():
    with pytest.raises(LongRecordError, match=r"its prompt has 3 tokens: .* at most 3"):
        sample_from("7-1", sound_record(), recomputed(3))
