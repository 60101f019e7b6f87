"""A failure that lasts is told by Degraded, with its cause, within two minutes."""

import json

import pytest
from support.causes import CAUSES, Failing


@pytest.fixture
def failing(control_plane, kubelet):
    made = Failing(control_plane, kubelet)
    yield made
    made.end()


def test_there_are_many():
    assert len(CAUSES) >= 25


@pytest.mark.slow
def test_each_is_told(failing, operator):
    operator.start(namespaces=failing.namespaces)
    failing.begin()

    told = failing.seconds(operator.restart_if_lease_lost)

    messages = failing.messages()
    untold = {cause: messages[cause] for cause in CAUSES if cause not in told}
    assert untold == {}, json.dumps(untold, indent=1)
