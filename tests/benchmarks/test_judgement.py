"""What simulated fleets show of the rule, in a few rollouts."""

from __future__ import annotations

from benchmarks.replay_world import HARMFUL
from benchmarks.rollout_run import Task, run


def test_short_answers_that_end_first_do_not_stand_for_all():
    """400 are in flight, and short ones alone gain: by their ends, it seems faster in most."""
    setting = HARMFUL["mixed_effects_in_flight"]
    results = run(Task(setting, 400, range(6), "Replay", guardrails=False))
    assert min(each.replayed for each in results) > 20
    assert [each.faster_after for each in results] == [None] * 6
