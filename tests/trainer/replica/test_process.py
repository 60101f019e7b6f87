"""Gradient replicas as processes: used, killed, hung, and reached by whom."""

from __future__ import annotations

import re
import signal
import socket
import threading
import urllib.request

import grpc
import pytest
import torch

from aurora.trainer.v1 import gradient_pb2, gradient_pb2_grpc, trainer_pb2, trainer_pb2_grpc
from aurora_common.port import free_port
from aurora_model.draft import load_draft, random_draft, small_draft_config
from aurora_trainer.data.replay import ReplayLimits
from aurora_trainer.published import published_after
from aurora_trainer.replica.parameter import parameters
from aurora_trainer.replica.share import config_text
from aurora_trainer.replica.tensor_file import pieces
from aurora_trainer.state import STATE, load_state

SECONDS = 60.0
TRAINER = "chat-trainer.serving.svc"


@pytest.fixture
def replicated(make_world, certified):
    """A secure world whose trainer knows one gradient replica; nothing runs yet."""
    port = free_port()
    # A share large enough to be worth its way.
    flags = (
        "--replicas-at", f"localhost:{port}", "--replicas-name", TRAINER,
        "--steps-per-round", 100, "--batch-size", 128,
    )  # fmt: skip
    world = make_world(certified=certified, trainer_flags=flags)
    world.replica_port = port
    world.certified = certified
    return world


def started_replica(world, *flags, name=TRAINER):
    """A gradient replica, once it listens, that shows a certificate for `name` alone."""
    tls = world.certified.authority.issue(world.state.parent / f"{name}-replica-tls", name)
    replica = world.gradient_replica(
        world.replica_port, "--tls", tls, "--admit", "localhost", *flags
    )
    start(replica, world)
    return replica


def start(replica, world):
    replica.start()
    world.until(lambda: listens(world.replica_port), "the replica listens")


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def metrics(world):
    with urllib.request.urlopen(f"http://127.0.0.1:{world.metrics_port}/metrics") as answer:
        return answer.read().decode()


def count(world, message):
    return len(re.findall(f'"message": "{message}"', world.trainer.log))


@pytest.mark.redis
@pytest.mark.slow
def test_killed_in_a_round_nothing_is_lost_and_once_restarted_it_is_used(
    replicated, target, make_records
):
    world = replicated
    world.start_buffer()
    replica = started_replica(world)
    world.start_trainer()
    world.until(lambda: count(world, "replica in use") == 1, "the replica is used")
    world.append(make_records(30))
    world.until(lambda: world.status().replicas == 2, "a step is of both")
    replica.kill()
    world.until(lambda: world.status().replicas == 1, "a step is of one")
    assert world.status().phase == "Training"
    world.until(lambda: world.sequences() == [1], "the round ends")
    (published,) = published_after(world.models, 0)
    load_draft(published.folder, target=target.identity, dtype=torch.float32)
    assert published.manifest.metrics["optimizer_steps"] == 100
    world.until(lambda: count(world, "replica excluded") == 1, "it is said")
    start(replica, world)
    world.until(lambda: count(world, "replica in use") == 2, "the replica is used again")
    world.append(make_records(30, seed=1))
    # Each step's shares go by how fast both are: the last one need not be of both.
    world.until(lambda: "aurora_trainer_replicas 2.0" in metrics(world), "a step is of both again")
    world.until(lambda: world.sequences() == [1, 2], "the second round ends")
    text = metrics(world)
    assert "aurora_trainer_optimizer_steps_total 200.0" in text
    assert "aurora_trainer_skipped_steps_total 0.0" in text
    assert replica.terminate() == 0
    assert world.trainer.terminate() == 0
    assert world.pending_and_lag() == (0, 0)
    assert "Traceback" not in world.trainer.log + replica.log


@pytest.mark.redis
def test_stopped_while_a_replica_hangs_the_step_ends_and_is_saved(replicated, make_records):
    world = replicated
    world.start_buffer()
    replica = started_replica(world)
    world.start_trainer()
    world.until(lambda: count(world, "replica in use") == 1, "the replica is used")
    replica.process.send_signal(signal.SIGSTOP)
    world.append(make_records(30))
    world.until(lambda: world.status().phase == "Training", "a step waits for the replica")
    assert world.trainer.terminate() == 0
    saved = load_state(world.state / STATE, ReplayLimits())
    assert saved.learner["steps"] == 1
    assert world.pending_and_lag() == (0, 0)
    assert "Traceback" not in world.trainer.log


@pytest.mark.redis
def test_a_replica_of_another_name_is_excluded_and_training_continues(replicated, make_records):
    world = replicated
    world.start_buffer()
    started_replica(world, name="localhost")
    world.start_trainer()
    world.until(lambda: "Hostname Verification Check failed" in world.trainer.log, "it says why")
    world.append(make_records(30))
    world.until(lambda: world.sequences() == [1], "the round ends")
    assert world.status().replicas == 1
    assert count(world, "replica in use") == 0


def refusal(channel):
    stub = gradient_pb2_grpc.GradientStub(channel)
    request = gradient_pb2.ComputeRequest(task=gradient_pb2.Task())
    with pytest.raises(grpc.RpcError) as refused:
        list(stub.Compute(iter([request]), timeout=SECONDS, wait_for_ready=True))
    return refused.value.code()


def certified_channel(certified, port, *names):
    folder = certified.authority.issue(certified._folder / "caller-tls", *names)
    credentials = grpc.ssl_channel_credentials(
        *((folder / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt"))
    )
    options = [("grpc.ssl_target_name_override", TRAINER)]
    return grpc.secure_channel(f"localhost:{port}", credentials, options=options)


def test_a_gradient_replica_serves_gradients_alone_and_keeps_nothing(replicated, certified):
    world = replicated
    metrics = free_port()
    replica = started_replica(world, "--metrics-listen", f"127.0.0.1:{metrics}")
    with certified_channel(certified, world.replica_port, "localhost") as channel:
        assert refusal(channel) is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.RpcError) as refused:
            trainer_pb2_grpc.TrainerStub(channel).GetStatus(
                trainer_pb2.GetStatusRequest(), timeout=SECONDS
            )
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics") as answer:
        assert "aurora_trainer_gradients_total 0.0" in answer.read().decode()
    assert replica.terminate() == 0
    assert not world.state.exists()
    assert not world.models.exists()
    assert "Traceback" not in replica.log


@pytest.mark.parametrize("name", ["aurora-operator", "inference", TRAINER])
def test_a_gradient_replica_refuses_clients_that_are_not_admitted(replicated, certified, name):
    started_replica(replicated)
    with certified_channel(certified, replicated.replica_port, name) as channel:
        assert refusal(channel) is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.slow
def test_stopped_in_a_long_share_it_ends_in_time(make_world, target):
    world, port, sent = make_world(), free_port(), threading.Event()
    replica = world.gradient_replica(port)
    replica.start()
    draft = random_draft(small_draft_config(target.decoder.config), seed=1)
    # Attention goes with the square of it: minutes.
    tokens = 1_000_000
    batch = {
        "tokens": torch.zeros(1, tokens, dtype=torch.int64),
        "rows": torch.tensor([tokens - 1]),
        "top_ids": torch.tensor([[0]]),
        "log_probs": torch.tensor([[0.0]]),
        "tail_mass": torch.tensor([0.0]),
    }

    def requests():
        request = gradient_pb2.ComputeRequest
        yield request(
            task=gradient_pb2.Task(
                draft_config=config_text(draft),
                objective="LK",
                positions=1,
                lengths=[tokens],
            )
        )
        yield from (request(batch=piece) for piece in pieces(batch))
        yield from (request(weights=piece) for piece in pieces(parameters(draft)))
        sent.set()

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = gradient_pb2_grpc.GradientStub(channel)
        responses = stub.Compute(requests(), timeout=SECONDS, wait_for_ready=True)
        assert next(responses).WhichOneof("part") == "accepted"
        assert sent.wait(SECONDS)
        assert replica.terminate() == 0
        with pytest.raises(grpc.RpcError) as ended:
            list(responses)
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "stopped mid-share" in replica.log
    assert "Traceback" not in replica.log


@pytest.mark.redis
def test_replica_0_serves_no_shares(replicated, certified):
    world = replicated
    world.start_trainer()
    with certified.channel(world.trainer_port) as channel:
        assert refusal(channel) is grpc.StatusCode.UNIMPLEMENTED
