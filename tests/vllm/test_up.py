"""`aurora up` with a stock vLLM: its draft learns from the traffic, is judged, and is promoted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stock.models import CONTEXT_TOKENS
from stock.server import VARIABLE
from stock.up import PROMOTED_SECONDS, Aurora, Load, manifest, running

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def aurora(models, weak_draft, tmp_path_factory) -> Iterator[Aurora]:
    document = manifest(
        target={"uri": models.target.as_uri(), "dtype": "float32"},
        engine={
            "type": "vllm",
            "executable": str(Path(os.environ[VARIABLE]) / "bin/vllm"),
            # Four clients: fewer tokens than the maximum while all of them wait.
            "speculative": {
                "perBatchSize": [{"batchSize": 1, "tokens": 4}, {"batchSize": 4, "tokens": 3}]
            },
            "args": ["--enforce-eager", "--max-num-seqs=16", "--max-num-batched-tokens=512"],
        },
        inference={"maxContextTokens": CONTEXT_TOKENS},
        draft={
            "initialCheckpoint": {"uri": weak_draft.as_uri()},
            "speculationLength": {"max": 4},
        },
    )
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    with running(document, tmp_path_factory.mktemp("up"), **environment) as found:
        yield found


@pytest.fixture
def load(aurora) -> Iterator[Load]:
    with Load(aurora.http_port) as sending:
        yield sending


def test_a_draft_that_learned_from_vllms_traffic_is_promoted_without_a_restart(aurora, load):
    verdicts = aurora.wait_for(aurora.promoted, "promotion", PROMOTED_SECONDS)

    assert verdicts[0].effect_bps >= 1000
    assert load.errors == []
    assert aurora.component("engine").restarts == 0
    assert aurora.component("inference").restarts == 0


def test_the_command_shows_engine_gateway_and_evidence(aurora, load):
    aurora.wait_for(aurora.promoted, "promotion", PROMOTED_SECONDS)
    command = [sys.executable, "-m", "aurora_client", "status", "--data-dir", str(aurora.data)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert shown.returncode == 0, shown.stderr
    ready = ("engine     ● ready", "inference  ● ready")
    for text in (*ready, "ReplayBetter", "requests on stable"):
        assert text in shown.stdout, shown.stdout


def test_a_vllm_that_dies_comes_back_with_the_stable_draft(aurora, load):
    stable = aurora.wait_for(aurora.promoted, "promotion")[0].digest
    before = aurora.component("engine")
    os.kill(before.pid, signal.SIGKILL)
    aurora.wait_for(
        lambda: (now := aurora.component("engine")) and now.restarts > before.restarts, "restart"
    )
    aurora.wait_for(aurora.is_ready, "deployment that is ready again")

    served = load.served
    aurora.wait_for(lambda: load.served > served + 20, "more requests served")
    status = aurora.status()
    assert status.stable.digest in {stable, *(past.digest for past in aurora.promoted())}
