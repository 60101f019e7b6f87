"""The trainer as a process in front of a real buffer and a real Redis."""

from __future__ import annotations

import re
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch
from support.certificate import Authority

from aurora.buffer.v1 import buffer_pb2, buffer_pb2_grpc
from aurora.trainer.v1 import trainer_pb2, trainer_pb2_grpc
from aurora_model.draft import load_draft
from aurora_trainer.data.replay import ReplayLimits
from aurora_trainer.published import published_after
from aurora_trainer.state import STATE, load_state

pytestmark = pytest.mark.redis

SECONDS = 60.0


def test_trajectories_become_checkpoints_that_a_watch_delivers(world, target, make_records):
    world.start_buffer()
    world.start_trainer()
    watch = world.trainer_stub.WatchCheckpoints(
        trainer_pb2.WatchCheckpointsRequest(), timeout=SECONDS
    )
    world.append(make_records(30))
    first = next(watch)
    assert (first.sequence, first.name, first.parent_digest) == (1, "ckpt-1", "")
    folder = Path(first.uri.removeprefix("file://"))
    _, manifest = load_draft(
        folder, digest=first.digest, target=target.identity, dtype=torch.float32
    )
    assert manifest.created_at_ms == first.published_at_ms
    assert first.trajectories >= 10
    assert 0 < first.acceptance < 1
    assert first.loss > 0
    promoted = trainer_pb2.PruneCheckpointsRequest(keep=9, stable_digest=first.digest)
    world.trainer_stub.PruneCheckpoints(promoted, timeout=SECONDS)
    # Records lie beside the checkpoints, and are none.
    record = trainer_pb2.KeepRolloutRecordRequest(
        name="1-0123456789ab", content=b'{"apiVersion": "aurora.dev/v1alpha1", "kind": "R"}'
    )
    world.trainer_stub.KeepRolloutRecord(record, timeout=SECONDS)
    kept = folder.parent / "rollouts" / "1-0123456789ab.json"
    assert kept.read_bytes() == record.content
    world.append(make_records(30, seed=1))
    second = next(watch)
    assert (second.sequence, second.parent_digest) == (2, first.digest)
    late = world.trainer_stub.WatchCheckpoints(
        trainer_pb2.WatchCheckpointsRequest(after_sequence=1), timeout=SECONDS
    )
    assert next(late) == second
    world.until(lambda: world.status().trajectories == 60, "all are taken in")
    assert world.status().published >= 2
    assert world.status().optimizer_steps >= 10
    with urllib.request.urlopen(f"http://127.0.0.1:{world.metrics_port}/metrics") as answer:
        assert "aurora_trainer_trajectories_total 60.0" in answer.read().decode()
    assert world.trainer.terminate() == 0
    assert world.pending_and_lag() == (0, 0)
    with pytest.raises(grpc.RpcError) as ended:
        list(watch)
    assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "Traceback" not in world.trainer.log


def test_by_mutual_tls_the_operator_alone_is_served(secure_world, certified, make_records):
    world = secure_world
    world.start_buffer()
    world.start_trainer()
    world.append(make_records(5))
    world.until(lambda: world.status().trajectories == 5, "five arrive")
    for peer in ("chat-inference.serving.svc", "chat-operator.other.svc", "aurora-operator"):
        with certified.channel(world.trainer_port, peer) as channel:
            stub = trainer_pb2_grpc.TrainerStub(channel)
            with pytest.raises(grpc.RpcError) as refused:
                stub.PruneCheckpoints(trainer_pb2.PruneCheckpointsRequest(keep=1), timeout=SECONDS)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    # Replaced under both, whose next connection is made with the new ones.
    certified.authority = Authority()
    for name in ("buffer", "trainer"):
        certified.issued(name)
    world.buffer.kill()
    world.buffer.start()
    with certified.channel(world.buffer_port) as channel:
        request = buffer_pb2.AppendRequest(trajectories=make_records(5, seed=1))
        buffer_pb2_grpc.BufferStub(channel).Append(
            iter([request]), timeout=SECONDS, wait_for_ready=True
        )
    with certified.channel(world.trainer_port) as channel:
        world.trainer_stub = trainer_pb2_grpc.TrainerStub(channel)
        world.until(lambda: world.status().trajectories == 10, "ten arrive")
    assert world.trainer.terminate() == 0
    assert "Traceback" not in world.trainer.log


def test_it_waits_for_a_buffer_that_is_not_there_and_outlives_its_restart(world, make_records):
    world.start_trainer()
    world.until(
        lambda: "cannot read from the buffer" in world.trainer.log, "it says what is missing"
    )
    world.start_buffer()
    world.append(make_records(5))
    world.until(lambda: world.status().trajectories == 5, "five arrive")
    world.buffer.kill()
    world.start_buffer()
    world.append(make_records(5, seed=1))
    world.until(lambda: world.status().trajectories == 10, "ten arrive")
    assert world.trainer.terminate() == 0
    assert world.pending_and_lag() == (0, 0)
    assert "Traceback" not in world.trainer.log


@pytest.mark.slow
def test_killed_at_any_moment_it_loses_nothing_and_resumes(world, target, make_records):
    world.start_buffer()
    random = np.random.default_rng(0)
    appended = 0
    earlier: list[int] = []
    for kill in range(7):
        world.trainer.start()
        if kill % 3:
            # Within the work: one time in three it is killed while it starts.
            world.until(lambda: _answers(world), "the trainer answers")
        for part in range(3):
            world.append(make_records(15, seed=10 * kill + part))
            appended += 15
        # A round and its publication take about as long.
        time.sleep(random.uniform(0, 0.5))
        world.trainer.kill()
        _assert_nothing_is_half(world, target)
        sequences = world.sequences()
        assert sequences[: len(earlier)] == earlier
        assert len(set(sequences)) == len(sequences)
        earlier = sequences
    world.start_trainer()
    world.until(lambda: world.pending_and_lag() == (0, 0), "everything is acknowledged")
    assert world.trainer.terminate() == 0
    saved = load_state(world.state / STATE, ReplayLimits())
    assert saved.progress.trajectories == appended
    assert len(set(saved.seen)) == appended
    assert len(world.sequences()) > 0
    assert "Traceback" not in world.trainer.log


def _answers(world) -> bool:
    try:
        return world.status().trajectories >= 0
    except grpc.RpcError:
        return False


def _assert_nothing_is_half(world, target) -> None:
    """What the buffer need not keep is in the state, and every checkpoint is whole."""
    groups = world.pending_and_lag()
    saved = load_state(world.state / STATE, ReplayLimits()) if world.state.exists() else None
    if groups is not None:
        total = world.buffer_stub.GetStats(buffer_pb2.GetStatsRequest()).appended_total
        acknowledged = total - sum(groups)
        assert (saved.progress.trajectories if saved else 0) >= acknowledged
    for published in published_after(world.models, 0):
        load_draft(published.folder, target=target.identity, dtype=torch.float32)


def test_a_full_disk_is_logged_and_retried(world, make_records):
    world.start_buffer()
    world.start_trainer()
    pid = world.trainer.process.pid
    limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    # Room for the log, but not for weights.
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (30_000, limits[1]))
    world.append(make_records(20))
    world.until(lambda: "state write failed; will retry" in world.trainer.log, "the log says so")
    assert world.sequences() == []
    assert world.pending_and_lag() == (20, 0)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
    world.until(lambda: world.pending_and_lag() == (0, 0), "everything is acknowledged")
    assert world.sequences() == [1]
    assert world.trainer.terminate() == 0
    assert "Traceback" not in world.trainer.log


def _fails_to_start(world) -> str:
    world.trainer.start()
    assert world.trainer.process.wait(SECONDS) == 1
    assert "Traceback" not in world.trainer.log
    (message,) = re.findall("^aurora_trainer: .*$", world.trainer.log, re.MULTILINE)
    return message


def test_a_port_that_is_taken_is_named(world):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", world.trainer_port))
        taken.listen()
        assert f"127.0.0.1:{world.trainer_port}" in _fails_to_start(world)


def test_a_corrupt_state_is_named_with_the_way_out(world):
    world.state.mkdir()
    (world.state / STATE).write_bytes(b"no state at all")
    message = _fails_to_start(world)
    assert str(world.state / STATE) in message
    assert "Move it away" in message


def test_a_second_trainer_on_the_same_state_refuses(world, tmp_path):
    world.start_trainer()
    arguments = list(world.trainer_arguments)
    arguments[2], arguments[4] = "127.0.0.1:0", "127.0.0.1:0"
    second = subprocess.run(
        [sys.executable, "-m", "aurora_trainer", *map(str, arguments)],
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    assert second.returncode == 1
    assert b"another trainer uses the state" in second.stderr
    world.trainer.process.send_signal(signal.SIGINT)
    assert world.trainer.process.wait(10) == 0


def test_values_that_are_not_allowed_are_named_together(world):
    arguments = [*map(str, world.trainer_arguments), "--batch-size", "0", "--holdout-percent", "99"]
    result = subprocess.run(
        [sys.executable, "-m", "aurora_trainer", *arguments],
        capture_output=True,
        timeout=SECONDS,
        check=False,
        text=True,
    )
    assert result.returncode == 1
    assert "--batch-size is 0: allowed is 1 to 4096" in result.stderr
    assert "--holdout-percent is 99: allowed is 0 to 50" in result.stderr
