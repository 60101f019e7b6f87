"""A trainer whose background work ends does not look ready."""

import stat
import urllib.request

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

pytestmark = pytest.mark.redis

SECONDS = 60.0
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

_SUBSCRIPTION_CRASHES_ONCE = """
import sys
from aurora_common import kept_running
from aurora_trainer import __main__, inbox
kept_running.STEADY_SECONDS = 1.0
put = inbox.Inbox.put
async def crash(self, entries):
    inbox.Inbox.put = put
    raise RuntimeError("a bug")
inbox.Inbox.put = crash
sys.exit(__main__.main(sys.argv[1:]))
"""

_TRAINING_CRASHES = """
import sys
from aurora_trainer import __main__, trainer
def crash(self, arrived):
    if arrived:
        raise RuntimeError("a bug")
    return ()
trainer.Trainer.take_in = crash
sys.exit(__main__.main(sys.argv[1:]))
"""


@pytest.fixture
def watched(world):
    """Starts a trainer as a program of its own, and yields its health's changes."""

    def start(program):
        world.start_buffer()
        world.trainer._arguments[1:3] = ["-c", program]
        world.start_trainer()
        health = health_pb2_grpc.HealthStub(channel)
        changes = health.Watch(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        assert next(changes).status == SERVING
        return changes

    with grpc.insecure_channel(f"127.0.0.1:{world.trainer_port}") as channel:
        yield start


def test_a_subscription_that_crashes_is_shown_counted_and_started_again(
    world, watched, make_records
):
    changes = watched(_SUBSCRIPTION_CRASHES_ONCE)
    world.append(make_records(5))
    assert next(changes).status == NOT_SERVING
    assert next(changes).status == SERVING
    # What the crash dropped was not acknowledged.
    world.until(lambda: world.status().trajectories == 5, "all arrive")
    with urllib.request.urlopen(f"http://127.0.0.1:{world.metrics_port}/metrics") as answer:
        text = answer.read().decode()
    assert 'aurora_trainer_task_restarts_total{task="subscription"} 1.0' in text
    assert world.trainer.terminate() == 0


def test_the_state_which_holds_prompts_is_closed_to_others(world):
    world.state.mkdir(mode=0o755)
    world.start_trainer()
    assert stat.S_IMODE(world.state.stat().st_mode) == 0o700


def test_a_training_thread_that_ends_is_shown_and_ends_the_process(world, watched, make_records):
    changes = watched(_TRAINING_CRASHES)
    world.append(make_records(5))
    assert next(changes).status == NOT_SERVING
    assert world.trainer.process.wait(SECONDS) == 1
    assert "training failed" in world.trainer.log
