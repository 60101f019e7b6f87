from itertools import pairwise

import pytest

from aurora_operator.domain.rollout.evidence import Evidence, observe
from aurora_operator.domain.rollout.outcome import Outcome
from aurora_operator.domain.rollout.path import MAX_SAMPLES, sampled
from aurora_operator.domain.rollout.replay import Replay, Score, read, replayed


def grown(count):
    path = None
    for number in range(1, count + 1):
        path = sampled(path, number, (float(number),) * 4, (-float(number),) * 8)
    return path


@pytest.mark.parametrize("count", [1, 31, 32, 33, 64, 65, 500, 4000])
def test_samples_are_evenly_spaced_and_few(count):
    path = grown(count)
    assert path.log_e == tuple(float(path.every * (i + 1)) for i in range(count // path.every))
    assert path.log_harm == tuple(-each for each in path.log_e)
    assert len(path.log_e) <= MAX_SAMPLES
    assert count <= MAX_SAMPLES or len(path.log_e) >= MAX_SAMPLES // 2
    assert all(low < high for low, high in pairwise(path.log_e))


def test_a_replays_path_depends_on_its_requests_alone():
    scores = [Score(f"{number}-0", "", 50, 20.0, 19.0) for number in range(1, 201)]
    one_by_one = Replay()
    for score in scores:
        one_by_one = replayed(one_by_one, score)
    in_pages = read(read(Replay(), scores[:77], through="77-0"), scores, through="200-0")
    assert in_pages.path == one_by_one.path
    assert one_by_one.path.log_e[-1] == pytest.approx(one_by_one.log_e, abs=0.5)


def test_live_requests_have_a_path_only_where_they_decide():
    alone, guarding = Evidence(), Evidence(replay=Replay())
    for _ in range(3):
        outcome = Outcome("candidate", 5000, 4, 3)
        alone, guarding = observe(alone, outcome), observe(guarding, outcome)
    assert alone.path.log_e[-1] == round(alone.log_e, 2)
    assert len(alone.path.log_e) == 3
    assert guarding.path is None
