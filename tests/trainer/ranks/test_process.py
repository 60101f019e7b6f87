"""Ranks as processes: killed, hung, of another version, and without their trainer."""

from __future__ import annotations

import json
import re
import signal
import urllib.request

import grpc
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc

from aurora_common.port import free_port
from aurora_model.draft import load_draft
from aurora_trainer.data.replay import ReplayLimits
from aurora_trainer.published import published_after
from aurora_trainer.state import STATE, load_state

# Of the ranks that hang.
TIMEOUT_SECONDS = 4


@pytest.fixture
def make_ranked(make_world):
    """make_ranked(timeout_seconds=40): a world whose trainer expects another rank, and that rank;
    nothing runs yet."""

    def make(timeout_seconds=40):
        return ranked_world(make_world, timeout_seconds)

    return make


def ranked_world(make_world, timeout_seconds):
    port = free_port()
    world = make_world(
        trainer_flags=(
            "--ranks", 2, "--ranks-listen", f"127.0.0.1:{port}",
            "--rank-timeout-seconds", timeout_seconds, "--local-ranks", 2,
            "--steps-per-round", 60, "--batch-size", 64,
        )
    )  # fmt: skip
    world.other = world.rank(port, "--rank-timeout-seconds", timeout_seconds)
    return world


def start(world):
    world.start_buffer()
    world.other.start()
    world.start_trainer()
    world.until(lambda: formed(world) > 0, "both train")


def count(text, message):
    return len(re.findall(f'"message": "{message}"', text))


def formed(world):
    return count(world.trainer.log, "ranks train together")


def metric(world, name):
    with urllib.request.urlopen(f"http://127.0.0.1:{world.metrics_port}/metrics") as answer:
        (value,) = re.findall(rf"^{name} (\S+)$", answer.read().decode(), re.MULTILINE)
    return float(value)


@pytest.mark.redis
@pytest.mark.slow
def test_killed_in_a_round_nothing_is_lost_and_once_restarted_it_is_used(
    make_ranked, target, make_records
):
    world = make_ranked()
    start(world)
    world.append(make_records(30))
    world.until(lambda: world.status().replicas == 2, "a step is of both")
    world.other.kill()
    world.until(lambda: world.status().replicas == 1, "a step is of one")
    world.until(lambda: world.sequences() == [1], "the round ends")
    (published,) = published_after(world.models, 0)
    load_draft(published.folder, target=target.identity, dtype=torch.float32)
    assert published.manifest.metrics["optimizer_steps"] == 60
    assert count(world.trainer.log, "training goes on alone") == 1
    before = formed(world)
    world.other.start()
    world.until(lambda: formed(world) > before, "both train again")
    world.append(make_records(30, seed=1))
    world.until(lambda: world.sequences() == [1, 2], "the second round ends")
    assert metric(world, "aurora_trainer_replicas") == 2
    assert metric(world, "aurora_trainer_optimizer_steps_total") == 120
    assert metric(world, "aurora_trainer_skipped_steps_total") == 0
    assert world.other.terminate() == 0
    assert world.trainer.terminate() == 0
    assert world.pending_and_lag() == (0, 0)
    assert "Traceback" not in world.trainer.log + world.other.log


@pytest.mark.redis
def test_a_rank_that_hangs_is_left_behind_after_the_timeout_until_it_goes_on(
    make_ranked, make_records
):
    world = make_ranked(TIMEOUT_SECONDS)
    start(world)
    world.other.process.send_signal(signal.SIGSTOP)
    world.append(make_records(30))
    world.until(lambda: world.sequences() == [1], "the round ends")
    assert metric(world, "aurora_trainer_replicas") == 1
    # One step waited for it, and no other.
    assert metric(world, "aurora_trainer_training_seconds_total") >= TIMEOUT_SECONDS
    assert count(world.trainer.log, "training goes on alone") == 1
    before = formed(world)
    world.other.process.send_signal(signal.SIGCONT)
    world.until(lambda: formed(world) > before, "both train again")


@pytest.mark.redis
def test_stopped_while_a_rank_hangs_the_step_ends_and_is_saved(make_world, make_records):
    port = free_port()
    world = make_world(trainer_flags=("--ranks", 2, "--ranks-listen", f"127.0.0.1:{port}"))
    world.other = world.rank(port)
    start(world)
    world.other.process.send_signal(signal.SIGSTOP)
    world.append(make_records(30))
    world.until(lambda: world.status().phase == "Training", "a step waits for the rank")
    assert world.trainer.terminate() == 0
    saved = load_state(world.state / STATE, ReplayLimits())
    assert saved.learner["steps"] == 1
    assert world.pending_and_lag() == (0, 0)
    assert "Traceback" not in world.trainer.log


@pytest.mark.redis
@pytest.mark.slow
def test_without_its_trainer_a_rank_waits_for_the_next_which_resumes(make_ranked, make_records):
    world = make_ranked()
    start(world)
    world.append(make_records(30))
    world.until(lambda: world.sequences() == [1], "the first round ends")
    world.append(make_records(30, seed=1))
    world.until(lambda: world.status().phase == "Training", "the second round begins")
    world.trainer.kill()
    world.until(lambda: "waiting for the trainer" in world.other.log, "it is missed")
    before = formed(world)
    world.start_trainer()
    world.until(lambda: formed(world) > before, "both train again")
    assert "training resumed" in world.trainer.log
    world.until(lambda: world.sequences()[-1] >= 2, "the second round ends")
    assert world.other.process.poll() is None


def test_a_rank_of_another_version_is_not_ready_and_says_why(make_meeting, until):
    meeting = make_meeting()
    meeting.store.set("hello", json.dumps({"aurora": "0.0.1", "torch": torch.__version__}))
    rank = meeting.add()
    until(lambda: "all ranks must be of one version" in rank.log, "it says so")
    assert "the trainer at 127.0.0.1" in rank.log
    assert "aurora 0.0.1" in rank.log
    (listen,) = re.findall(r'"address": "(127.0.0.1:\d+)"', rank.log)
    with grpc.insecure_channel(listen) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=10
        )
    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert rank.terminate() == 0
