"""Two drafts on the same requests: what is scored, what is not, and which drafts are refused."""

from __future__ import annotations

import gc
import math

import pytest
import torch

from aurora.buffer.v1 import buffer_pb2
from aurora_common.errors import AuroraError, CheckpointError, ConflictError, StorageError
from aurora_model.decoder import causal_attend
from aurora_model.draft import load_draft, publish_draft, random_draft, small_draft_config
from aurora_trainer import stable
from aurora_trainer.judge.comparison import Comparisons, JudgedDraft, Pair, Unjudged

OUTPUT, DRAFTED = 20, 3
LEAST_STEPS = math.ceil(OUTPUT / (DRAFTED + 1))


@pytest.fixture
def compared(comparisons, judge_drafts):
    """compared(stable, candidate): the comparison of two drafts by their names."""

    def load(stable, candidate, **options):
        return comparisons.load(Pair(judge_drafts[stable], judge_drafts[candidate], **options))

    return load


def test_the_same_draft_needs_as_many_steps_as_itself(compared, make_entries):
    comparison = compared("perfect", "twin")
    for entry in make_entries(5):
        score = comparison.score(entry)
        assert (score.id, score.domain, score.output_tokens) == (entry.id, "a", OUTPUT)
        assert score.stable_steps == score.candidate_steps


@pytest.mark.parametrize("temperature", [0.0, 0.8, 1.0])
@pytest.mark.parametrize("greedy_drafts", [False, True])
def test_a_better_draft_needs_fewer_steps(compared, make_entries, temperature, greedy_drafts):
    comparison = compared("random", "perfect", greedy_drafts=greedy_drafts)
    for entry in make_entries(5, temperature=temperature):
        score = comparison.score(entry)
        assert LEAST_STEPS <= score.candidate_steps < score.stable_steps <= OUTPUT


def test_a_perfect_draft_needs_the_fewest_steps(compared, make_entries):
    (entry,) = make_entries(1, temperature=0.0)
    assert compared("random", "perfect").score(entry).candidate_steps == LEAST_STEPS


@pytest.mark.parametrize("role", [0, 1])
def test_what_was_accepted_in_service_is_beside_what_the_weights_predict(
    compared, make_entries, judge_drafts, role
):
    comparison = compared(*(("perfect", "random") if role == 0 else ("random", "perfect")))
    as_predicted, never, seeded = make_entries(3, temperature=0.0)
    seeded.trajectory.sampling.temperature, seeded.trajectory.sampling.seed = 1.0, 7
    # The first token comes with the prompt.
    served = [*[(DRAFTED, DRAFTED)] * 4, (2, 2)], [(DRAFTED, 0)] * (OUTPUT - 1)
    for entry, steps in zip((as_predicted, never, seeded), (*served, served[1]), strict=True):
        entry.trajectory.draft_digest = judge_drafts["perfect"].digest
        del entry.trajectory.steps[:]
        for drafted, accepted in steps:
            entry.trajectory.steps.add(drafted=drafted, accepted=accepted)
        comparison.score(entry)
    comparison.score(never)  # again, which does not count

    found, other = comparison.agreements[role], comparison.agreements[1 - role]
    assert (found.requests, found.accepted, found.variance) == (2, 14, 0.0)
    assert found.tested == found.predicted == 14 + OUTPUT - 1
    assert (other.digest, other.requests) == (judge_drafts["random"].digest, 0)


def test_a_longer_draft_needs_fewer_steps(compared, make_entries):
    comparison = compared("random", "perfect")
    (entry,) = make_entries(1)
    shorter = comparison.score(entry)
    entry.trajectory.steps[1].drafted = 2 * DRAFTED
    assert comparison.score(entry).candidate_steps < shorter.candidate_steps


def test_the_same_request_gets_the_same_score_from_a_fresh_judge(compared, make_entries):
    entries = make_entries(8)
    forwards = [compared("random", "perfect").score(entry) for entry in entries]
    comparison = compared("random", "perfect")
    backwards = [comparison.score(entry) for entry in reversed(entries)]
    assert forwards == backwards[::-1]
    assert all(score.stable_steps == round(score.stable_steps, 6) for score in forwards)


def test_what_the_candidate_served_does_not_judge_it(compared, judge_drafts, make_entries):
    comparison = compared("random", "perfect")
    (entry,) = make_entries(1)
    entry.trajectory.draft_digest = judge_drafts["perfect"].digest
    # Whatever it says.
    entry.trajectory.target_digest = "another"
    assert comparison.score(entry) is Unjudged.CANDIDATE_SERVED


def _foreign(record):
    record.target_digest = "another"


def _malformed(record):
    record.target.tail_mass = b""


def _unlikely(record):
    record.sampling.temperature = -1


def _bare(record):
    record.ClearField("target")


def _unspeculated(record):
    for step in record.steps:
        step.drafted = 0


def _drafted_by_ngrams(record):
    for step in record.steps:
        step.ngram_drafted, step.ngram_accepted = step.drafted, step.accepted
        step.drafted = step.accepted = 0


def _without_steps(record):
    record.ClearField("steps")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_foreign, Unjudged.FOREIGN),
        (_malformed, Unjudged.MALFORMED),
        (_unlikely, Unjudged.MALFORMED),
        (_bare, Unjudged.BARE),
        (_unspeculated, Unjudged.NOTHING_DRAFTED),
        (_drafted_by_ngrams, Unjudged.NOTHING_DRAFTED),
        (_without_steps, Unjudged.NOTHING_DRAFTED),
    ],
)
def test_what_says_nothing_has_no_score(compared, make_entries, spoil, reason):
    (entry,) = make_entries(1)
    spoil(entry.trajectory)
    assert compared("random", "perfect").score(entry) is reason


@pytest.mark.parametrize("spoil", [_unspeculated, _without_steps])
def test_where_nothing_was_drafted_a_length_is_assumed(compared, make_entries, spoil):
    """A stale draft is not used at all, and a better one must be seen nevertheless."""
    drafted, plain = make_entries(1)[0], make_entries(1)[0]
    spoil(plain.trajectory)
    comparison = compared("random", "perfect", speculation_length=DRAFTED)
    assert comparison.score(plain) == comparison.score(drafted)


@pytest.fixture(scope="module")
@torch.no_grad()
def greedy_entry(target, make_entries):
    """A request of which every token is the target's most probable one."""
    (entry,) = make_entries(1, temperature=0.0)
    record = entry.trajectory
    tokens = torch.tensor([list(record.prompt_tokens)])
    for _ in range(OUTPUT):
        positions = torch.arange(tokens.shape[1]).unsqueeze(0)
        hidden = target.decoder(tokens, positions, causal_attend)
        best = target.decoder.logits(hidden[:, -1]).argmax(dim=-1, keepdim=True)
        tokens = torch.cat([tokens, best], dim=1)
    record.output_tokens[:] = tokens[0, -OUTPUT:].tolist()
    record.ClearField("target")
    return entry


def test_of_a_greedy_request_token_ids_are_enough(compared, greedy_entry):
    score = compared("random", "perfect").score(greedy_entry)
    assert score.candidate_steps == LEAST_STEPS
    assert LEAST_STEPS < score.stable_steps <= OUTPUT
    assert (score.domain, score.output_tokens) == ("a", OUTPUT)


def test_a_greedy_request_that_makes_no_sense_has_no_score(compared, greedy_entry):
    comparison = compared("random", "perfect")
    for spoil, reason in (
        (_foreign, Unjudged.FOREIGN),
        (lambda record: record.output_tokens.append(1 << 20), Unjudged.MALFORMED),
        (lambda record: record.ClearField("prompt_tokens"), Unjudged.MALFORMED),
    ):
        entry = buffer_pb2.Entry()
        entry.CopyFrom(greedy_entry)
        spoil(entry.trajectory)
        assert comparison.score(entry) is reason


def test_another_shape_is_refused_for_good(comparisons, judge_drafts, target, tmp_path):
    small = random_draft(small_draft_config(target.decoder.config), seed=3)
    folder, manifest = publish_draft(small, tmp_path, name="small", target=target.identity)
    other = JudgedDraft(manifest.digest, folder.as_uri())
    with pytest.raises(ConflictError, match="their shapes differ"):
        comparisons.load(Pair(judge_drafts["random"], other))


def test_another_shape_is_compared_by_who_knows_what_its_steps_cost(
    comparisons, judge_drafts, make_entries, target, tmp_path
):
    small = random_draft(small_draft_config(target.decoder.config), seed=3)
    folder, manifest = publish_draft(small, tmp_path, name="small", target=target.identity)
    other = JudgedDraft(manifest.digest, folder.as_uri())
    (entry,) = make_entries(1)
    score = comparisons.load(Pair(judge_drafts["perfect"], other, any_shape=True)).score(entry)
    assert score.shapes_differ
    assert score.stable_steps < score.candidate_steps
    alike = comparisons.load(Pair(judge_drafts["perfect"], judge_drafts["twin"], any_shape=True))
    assert not alike.score(entry).shapes_differ


def test_another_digest_than_its_files_have_is_refused(comparisons, judge_drafts):
    wrong = JudgedDraft(f"sha256:{'0' * 64}", judge_drafts["perfect"].uri)
    with pytest.raises(CheckpointError, match="the caller says sha256:0000"):
        comparisons.load(Pair(judge_drafts["random"], wrong))


@pytest.mark.parametrize("uri", ["file:///nowhere/at/all", "pvc://claim/draft", "ftp://x", "file:"])
def test_a_draft_that_is_not_there_is_refused(comparisons, judge_drafts, uri):
    with pytest.raises(AuroraError, match=r"nowhere|'(pvc|ftp|file):"):
        comparisons.load(
            Pair(judge_drafts["random"], JudgedDraft(judge_drafts["perfect"].digest, uri))
        )


def test_a_uri_that_no_one_can_read_is_refused(comparisons, judge_drafts):
    with pytest.raises(StorageError, match=r"cannot read 'file://\[/x'"):
        comparisons.load(Pair(judge_drafts["random"], JudgedDraft("", "file://[/x")))


def test_a_claim_is_where_it_is_mounted(target, judge_drafts, make_entries, tmp_path):
    publish_draft(target.decoder, tmp_path / "claim", name="perfect", target=target.identity)
    (folder,) = (tmp_path / "claim").iterdir()
    mounted = JudgedDraft(judge_drafts["perfect"].digest, f"pvc://claim/{folder.name}")
    comparisons = Comparisons(target.identity, target.record_format, claims=tmp_path)
    (entry,) = make_entries(1)
    score = comparisons.load(Pair(judge_drafts["random"], mounted)).score(entry)
    assert score.candidate_steps < score.stable_steps


def test_two_comparisons_share_a_draft_while_either_needs_it(
    target, judge_drafts, make_entries, monkeypatch
):
    loads = []

    def load(folder, **options):
        loads.append(folder.name.split("-")[0])
        return load_draft(folder, **options)

    monkeypatch.setattr(stable, "load_draft", load)
    comparisons = Comparisons(target.identity, target.record_format)
    rollout = comparisons.load(Pair(judge_drafts["random"], judge_drafts["perfect"]))
    watch = comparisons.load(Pair(judge_drafts["perfect"], judge_drafts["random"]))
    assert loads == ["random", "perfect"]
    (entry,) = make_entries(1)
    forwards, backwards = rollout.score(entry), watch.score(entry)
    assert forwards.candidate_steps == backwards.stable_steps < backwards.candidate_steps
    del rollout
    comparisons.load(Pair(judge_drafts["twin"], judge_drafts["perfect"]))
    assert loads == ["random", "perfect", "twin"]
    del watch
    gc.collect()
    comparisons.load(Pair(judge_drafts["twin"], judge_drafts["perfect"]))
    assert loads == ["random", "perfect", "twin", "twin", "perfect"]
