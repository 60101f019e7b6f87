"""Invalid input is refused with the reason, without quoting it."""

import grpc
import pytest

from aurora.buffer.v1 import buffer_pb2
from aurora_buffer.entry import MAX_NAME_BYTES, MAX_TRAJECTORY_BYTES

pytestmark = pytest.mark.redis


def _refusal(call) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    return caught.value.details()


def test_tenant_too_long(buffer, trajectory):
    details = _refusal(lambda: buffer.append(trajectory("a", tenant="geheim" * 50)))
    assert details == f"tenant has 300 bytes: at most {MAX_NAME_BYTES}"


def test_trajectory_too_large(buffer, trajectory):
    large = trajectory("a", tokens=0)
    large.domain = "x" * MAX_TRAJECTORY_BYTES
    assert "trajectory has 16777" in _refusal(lambda: buffer.append(large))


def test_rows_do_not_fit_the_tokens(buffer, trajectory):
    short = trajectory("a", tokens=5)
    short.target.log_probs = short.target.log_probs[:-2]
    details = _refusal(lambda: buffer.append(trajectory("b"), short))
    assert details == "target.log_probs has 38 bytes: 5 output tokens with k=4 need 40"
    # The message is stored whole or not at all.
    assert buffer.stats().entries == 0


def test_too_many_in_one_message(buffer):
    many = [buffer_pb2.Trajectory()] * 1001
    assert "1001 trajectories in one message" in _refusal(lambda: buffer.append(*many))


def test_bytes_that_are_no_message(buffer):
    append = buffer.channel.stream_unary("/aurora.buffer.v1.Buffer/Append")
    details = _refusal(lambda: append(iter([b"\xff\xff\xff"]), timeout=10))
    assert details == "the message cannot be parsed"


@pytest.mark.parametrize("entry_id", ["", "1", "1-", "a-b", "1-1-1", f"{2**64}-0", "١-١"])
def test_ids_that_are_none(buffer, entry_id):
    assert "ids[1] is not a stream id" in _refusal(lambda: buffer.ack("1-1", entry_id))


def test_names_missing_or_too_long(buffer):
    assert "group has 0 bytes" in _refusal(lambda: buffer.ack("1-1", group=""))
    assert "consumer has 0 bytes" in _refusal(lambda: next(buffer.subscribe("")))
    assert "consumer has 257 bytes" in _refusal(lambda: next(buffer.subscribe("x" * 257)))
    assert "tenant has 0 bytes" in _refusal(lambda: buffer.delete(""))


def test_unknown_group_has_nothing_to_acknowledge(buffer):
    assert buffer.ack("1-1", group="nobody") == 0
