"""Which pod is asked for what."""

from aurora_operator.cluster.kinds import COMPONENT, Key
from aurora_operator.cluster.scene import publishing_pod

KEY = Key("serving", "chat")


def _pod(name, component="trainer", address="10.0.0.1"):
    metadata = {"name": name, "uid": name, "labels": {COMPONENT: component}}
    return {"metadata": metadata, "status": {"podIP": address} if address else {}}


def test_checkpoints_come_from_the_first_trainer_alone():
    first = _pod("chat-trainer-0")
    others = [_pod("chat-trainer-1"), _pod("chat-trainer-10"), _pod("chat-buffer-0", "buffer")]
    assert publishing_pod([*others, first], KEY) is first
    assert publishing_pod(others, KEY) is None


def test_a_trainer_without_an_address_is_not_asked():
    assert publishing_pod([_pod("chat-trainer-0", address="")], KEY) is None
