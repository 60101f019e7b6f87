"""Drafts of the tiny target, published, and records that say how they were sampled."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from aurora.buffer.v1 import buffer_pb2
from aurora_model.draft import publish_draft, random_draft
from aurora_trainer.judge.comparison import Comparisons, JudgedDraft

DRAFTED = 3
SERVED_BY = f"sha256:{'5' * 64}"


@pytest.fixture(scope="session")
def judge_drafts(target, tmp_path_factory) -> dict[str, JudgedDraft]:
    """`perfect`, which is the target, and `random`, of one shape; `twin` has perfect's weights."""
    root = tmp_path_factory.mktemp("judged")
    drafts = {
        "perfect": target.decoder,
        "twin": target.decoder,
        "random": random_draft(target.decoder.config, seed=3),
    }
    judged = {}
    for name, draft in drafts.items():
        folder, manifest = publish_draft(draft, root, name=name, target=target.identity)
        judged[name] = JudgedDraft(manifest.digest, folder.as_uri())
    return judged


@pytest.fixture(scope="session")
def comparisons(target) -> Comparisons:
    return Comparisons(target.identity, target.record_format)


@pytest.fixture(scope="session")
def make_drafted(make_records) -> Callable[..., list[buffer_pb2.Trajectory]]:
    """make_drafted(count, seed=0, temperature=1.0): records that another draft helped to serve."""

    def make(count: int, *, seed: int = 0, temperature: float = 1.0) -> list[buffer_pb2.Trajectory]:
        records = make_records(count, seed=seed)
        for record in records:
            record.draft_digest = SERVED_BY
            record.sampling.temperature = temperature
            record.sampling.top_p = 1.0
            for drafted in (DRAFTED, DRAFTED, 1):
                record.steps.add(drafted=drafted)
        return records

    return make


@pytest.fixture(scope="session")
def make_entries(make_drafted) -> Callable[..., list[buffer_pb2.Entry]]:
    """make_entries(count, …): the same with increasing stream ids."""

    def make(count: int, **options) -> list[buffer_pb2.Entry]:
        return [
            buffer_pb2.Entry(id=f"{1000 + number}-0", trajectory=record)
            for number, record in enumerate(make_drafted(count, **options))
        ]

    return make
