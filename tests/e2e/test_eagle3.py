"""The whole loop with an EAGLE-3 head, which Aurora's own engine serves."""

from __future__ import annotations

import pytest

from aurora_model.config import read_config
from aurora_model.draft import Eagle3Draft, publish_draft

pytestmark = [pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(600)]

PROMOTED_SECONDS = 500


@pytest.fixture(scope="module")
def learning(target_folder, identity, tmp_path_factory) -> dict:
    head = Eagle3Draft.random(read_config(target_folder), seed=0)
    root = tmp_path_factory.mktemp("heads")
    draft, checkpoint = publish_draft(head, root, name="head-0", target=identity)
    return {"kind": "Eagle3", "draft": draft, "checkpoint": checkpoint, "targets": "Recompute"}


def test_a_head_that_learned_from_the_traffic_is_promoted(aurora, load, wait_for) -> None:
    def promotions():
        status = aurora.status()
        return [past for past in status.history if past.outcome == "Promoted"] if status else []

    (promoted, *_) = wait_for(promotions, what="a promotion", seconds=PROMOTED_SECONDS)

    assert promoted.reason == "ReplayBetter"
    assert promoted.saved_bps > 0
    assert load.failed == 0
    stable = next(arm for arm in aurora.counters().arms if arm.arm == "stable")
    assert stable.accepted_tokens > 0
