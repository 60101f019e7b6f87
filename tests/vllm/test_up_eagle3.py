"""`aurora up` with an EAGLE-3 head in a stock vLLM, which learns from tokens alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from stock.models import CONTEXT_TOKENS
from stock.server import VARIABLE
from stock.up import PROMOTED_SECONDS, Aurora, Load, manifest, running

from aurora_model.config import read_config
from aurora_model.draft import Eagle3Draft, publish_draft
from aurora_model.target import target_identity

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def aurora(models, tmp_path_factory) -> Iterator[Aurora]:
    head = Eagle3Draft.random(read_config(models.target), seed=0)
    store = tmp_path_factory.mktemp("heads")
    begin, _ = publish_draft(head, store, name="begin", target=target_identity(models.target))
    document = manifest(
        target={"uri": models.target.as_uri(), "dtype": "float32"},
        engine={
            "type": "vllm",
            "executable": str(Path(os.environ[VARIABLE]) / "bin/vllm"),
            "args": ["--enforce-eager", "--max-num-seqs=16", "--max-num-batched-tokens=512"],
        },
        inference={"maxContextTokens": CONTEXT_TOKENS},
        draft={
            "kind": "Eagle3",
            "initialCheckpoint": {"uri": begin.as_uri()},
            "speculationLength": {"max": 4},
        },
    )
    document["spec"]["trainer"]["targets"] = "Recompute"
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    with running(document, tmp_path_factory.mktemp("up"), **environment) as found:
        yield found


def test_a_head_that_learned_from_vllms_tokens_is_promoted_without_a_restart(aurora):
    with Load(aurora.http_port) as load:
        verdicts = aurora.wait_for(aurora.promoted, "promotion", PROMOTED_SECONDS)

    assert verdicts[0].effect_bps >= 1000
    assert load.errors == []
    assert aurora.component("engine").restarts == 0
    assert aurora.component("inference").restarts == 0
