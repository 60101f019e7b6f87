"""The whole loop: traffic trains a draft, a better one is promoted, and it survives kills."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess

import grpc
import pytest

from aurora.buffer.v1 import buffer_pb2, buffer_pb2_grpc
from aurora.trainer.v1 import trainer_pb2, trainer_pb2_grpc

pytestmark = [pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(600)]

CALL_SECONDS = 10
NAME = "chat"


def _promotions(aurora) -> int:
    status = aurora.status()
    return sum(past.outcome == "Promoted" for past in status.history) if status else 0


def _appended(aurora) -> int:
    with grpc.insecure_channel(aurora.address("buffer")) as channel:
        stub = buffer_pb2_grpc.BufferStub(channel)
        return stub.GetStats(buffer_pb2.GetStatsRequest(), timeout=CALL_SECONDS).appended_total


def _trained(aurora) -> int:
    with grpc.insecure_channel(aurora.address("trainer")) as channel:
        stub = trainer_pb2_grpc.TrainerStub(channel)
        return stub.GetStatus(trainer_pb2.GetStatusRequest(), timeout=CALL_SECONDS).trajectories


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_printed_command_is_answered(aurora, wait_for) -> None:
    wait_for(lambda: f"aurora: {NAME} serves: base_url {aurora.http}" in aurora.said, what="a line")
    (command,) = re.findall(r"^aurora: try: (curl .*)$", aurora.said, re.MULTILINE)
    answer = subprocess.run(
        shlex.split(command), capture_output=True, check=True, timeout=CALL_SECONDS
    )
    assert json.loads(answer.stdout)["choices"][0]["finish_reason"] in ("length", "stop")


def test_a_draft_trained_on_the_traffic_is_promoted(aurora, load, wait_for) -> None:
    wait_for(lambda: _promotions(aurora) >= 1, what="a promotion")
    status = aurora.status()
    promoted = [past for past in status.history if past.outcome == "Promoted"]
    # Recorded requests prove it, live ones confirm it.
    assert promoted[-1].reason == "ReplayBetter"
    assert promoted[-1].saved_bps > 0
    assert promoted[-1].replayed > 0
    assert promoted[-1].requests >= 20
    assert load.failed == 0


@pytest.mark.parametrize("component", ["operator", "buffer", "trainer", "redis"])
def test_killing_another_component_fails_no_request_and_loses_no_trajectory(
    aurora, load, component, wait_for
) -> None:
    load.wait_for_more(20)
    aurora.kill(component)
    load.wait_for_more(20)
    load.__exit__()
    assert load.failed == 0
    # Everything that the buffer acknowledged is still counted there and reaches the trainer.
    sent = aurora.counters().trajectories_sent
    wait_for(lambda: _appended(aurora) >= sent, what="every acknowledged trajectory")
    stored = _appended(aurora)
    wait_for(lambda: _trained(aurora) >= stored, what="the trainer to consume them all")


def test_killing_inference_fails_only_requests_in_flight(aurora, load) -> None:
    load.wait_for_more(20)
    aurora.kill("inference")
    load.wait_for_more(20)
    load.__exit__()
    assert load.failed <= load.streams


def test_the_loop_goes_on_after_the_kills(aurora, load, wait_for) -> None:
    before = {past.id for past in aurora.status().history}
    wait_for(
        lambda: {past.id for past in aurora.status().history} - before,
        what="another rollout that ends",
    )
    assert load.failed == 0
