"""What a person at a terminal is told to try."""

import json
import shlex

from aurora.operator.v1 import operator_pb2
from aurora_operator.local.narrator import Narrator, serving_lines


def tried(line):
    """The arguments of the command in it."""
    return shlex.split(line.removeprefix("try: "))


def test_the_command_names_the_model():
    where, how = serving_lines("chat", http=8000, grpc=9000)

    assert where == "chat serves: base_url http://127.0.0.1:8000/v1, gRPC 127.0.0.1:9000"
    assert json.loads(tried(how)[-1])["model"] == "chat"


def test_an_attached_engine_knows_its_own_model_and_wants_its_key():
    _, how = serving_lines("chat", http=8000, grpc=None, key_file="/etc/a key")

    assert "model" not in json.loads(tried(how)[-1])
    assert "authorization: Bearer $(cat '/etc/a key')" in tried(how)


def test_what_is_wanted_no_longer_stopped_and_may_be_ready_again():
    ready = [operator_pb2.Component(name=name, ready=True) for name in ("trainer", "inference")]
    narrator = Narrator(["chat serves"])
    assert [line.partition(" after")[0] for line in narrator.lines(ready)] == [
        "trainer is ready",
        "inference is ready",
        "chat serves",
    ]

    stopping = operator_pb2.Component(name="inference", message="stopping")
    assert list(narrator.lines([stopping])) == ["trainer stopped"]
    assert list(narrator.lines([])) == ["inference stopped"]

    again = [line.partition(" after")[0] for line in narrator.lines(ready)]
    assert again == ["trainer is ready", "inference is ready"]
