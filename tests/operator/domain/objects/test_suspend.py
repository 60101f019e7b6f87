"""What a suspended deployment leaves of its objects: all of them, without pods."""

from datetime import UTC, datetime, timedelta

import pytest
from support.desired import ENGINES, SETTING, SPECS, deployment

from aurora_operator.domain.objects import desired_objects
from aurora_operator.domain.objects.cause import Surroundings
from aurora_operator.domain.objects.workload import ending_view
from aurora_operator.domain.plan.observation import ComponentView

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def objects(spec, *, drained=True, **more):
    found = desired_objects(deployment(**spec, **more), SETTING, ENGINES, drained=drained)
    return {(made["kind"], made["metadata"]["name"]): made for made in found}


def replicas(found):
    return {
        name: made["spec"].get("replicas")
        for (kind, name), made in found.items()
        if kind in ("Deployment", "StatefulSet")
    }


@pytest.mark.parametrize("case", SPECS)
def test_every_object_stays_and_no_pod_is_wanted(case):
    running, suspended = objects(SPECS[case]), objects(SPECS[case], suspend=True)
    assert set(suspended) == set(running)
    assert set(replicas(suspended).values()) == {0}
    for place, made in suspended.items():
        # Pods are the same once it goes on: nothing but their number differs.
        spec = dict(made["spec"]) if "spec" in made else {}
        wanted = dict(running[place]["spec"]) if "spec" in made else {}
        if place[0] in ("Deployment", "StatefulSet"):
            spec.pop("replicas", None)
            wanted.pop("replicas", None)
        assert spec == wanted


def test_the_buffer_stays_while_anything_is_recorded():
    found = replicas(objects({}, drained=False, suspend=True))
    assert found == {"chat-inference": 0, "chat-buffer": 1, "chat-trainer": 0}


def test_drained_is_only_of_a_suspended_one():
    assert objects({}, drained=False) == objects({})


def pod(name, ending_since=None):
    made = {"metadata": {"name": name}, "spec": {"nodeName": "node-1"}}
    if ending_since is not None:
        made["metadata"]["deletionTimestamp"] = ending_since.isoformat()
    return made


def test_a_component_ends_with_its_last_pod():
    around = Surroundings(NOW, {}, {}, {})
    assert ending_view("trainer", [], around) is None
    view = ending_view("trainer", [pod("a", NOW)], around)
    assert view == ComponentView("trainer", ready=False, message="pod a is ending")
    assert ending_view("trainer", [pod("a")], around) == ComponentView("trainer", ready=False)
    stuck = ending_view("trainer", [pod("a", NOW), pod("b", NOW - timedelta(hours=1))], around)
    assert stuck.failing
    assert stuck.message.startswith("pod b should have ended at ")
