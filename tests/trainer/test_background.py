"""A trainer whose background work ends does not look ready."""

import stat
import urllib.request

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from aurora.trainer.v1 import judge_pb2
from aurora_model.draft import publish_draft, random_draft, small_draft_config

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

_JUDGE_CRASHES_ONCE = """
import sys
from aurora_trainer import __main__
from aurora_trainer.judge import reader
read = reader.BufferReader.read
async def crash(self, after):
    reader.BufferReader.read = read
    raise RuntimeError("a bug")
reader.BufferReader.read = crash
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
def judged_pair(target, tmp_path):
    """Two drafts of one shape, as a question to the judge names them."""
    config = small_draft_config(target.decoder.config)
    pair = {}
    for seed, name in enumerate(("stable", "candidate")):
        folder, manifest = publish_draft(
            random_draft(config, seed), tmp_path / "judged", name=name, target=target.identity
        )
        pair[name] = judge_pb2.JudgedDraft(digest=manifest.digest, uri=folder.as_uri())
    return pair


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


def test_a_judge_that_crashes_is_counted_and_started_again_and_training_goes_on(
    world, watched, make_records, judged_pair
):
    changes = watched(_JUDGE_CRASHES_ONCE)
    world.append(make_records(5))
    last_id = world.last_id()
    request = judge_pb2.ListScoresRequest(**judged_pair)
    world.until(
        lambda: world.judge_stub.ListScores(request, timeout=SECONDS).next_after == last_id,
        "the requests were read",
    )
    world.until(lambda: world.status().trajectories == 5, "all arrive")
    with urllib.request.urlopen(f"http://127.0.0.1:{world.metrics_port}/metrics") as answer:
        text = answer.read().decode()
    assert 'aurora_trainer_task_restarts_total{task="judge"} 1.0' in text
    assert 'aurora_trainer_unjudged_requests_total{reason="nothing_drafted"} 5.0' in text
    assert world.trainer.terminate() == 0
    # It looked ready all the time.
    assert next(changes).status == NOT_SERVING


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
