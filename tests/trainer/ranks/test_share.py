import pytest

from aurora_trainer.learning.gradient import Unroll
from aurora_trainer.ranks.share import Task, decoded, shares


@pytest.mark.parametrize(
    ("costs", "ranks", "parts"),
    [
        ([1, 1, 1, 1], 2, ((0, 2), (1, 3))),
        ([5, 1, 1, 3], 2, ((0,), (1, 2, 3))),
        ([1, 2, 3], 1, ((0, 1, 2),)),
        ([4], 3, ((0,), (), ())),
    ],
)
def test_samples_are_divided_by_what_they_cost(costs, ranks, parts):
    assert shares(costs, ranks) == parts


def test_a_task_arrives_as_it_was_sent(plain_sample):
    samples = [plain_sample(number, outputs=number + 1) for number in range(3)]
    sent = Task("standalone", {"hidden_size": 4}, "LK", Unroll(3, 0.5), samples, ((0, 2), (1,)))

    found = decoded(sent.encoded())

    assert (found.draft_kind, found.draft_config, found.objective) == (
        "standalone",
        {"hidden_size": 4},
        "LK",
    )
    assert found.unroll == Unroll(3, 0.5)
    assert [list(part) for part in found.parts] == [[0, 2], [1]]
    for ours, theirs in zip(samples, found.samples, strict=True):
        assert ours.stream_id == theirs.stream_id
        for name in ("tokens", "top_ids", "log_probs", "tail_mass"):
            assert (getattr(ours, name) == getattr(theirs, name)).all()
