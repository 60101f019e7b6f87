"""Behind a faulty API server, a rollout ends as behind a sound one.

The operator is restarted amid the rollout: what it lists then may be as old as its first start.
"""

from dataclasses import asdict

import pytest
from support.deployments import Deployments
from support.proxy import ApiFaults
from support.story import Story

LOST = "watch events late, lost and cut off"
FAULTS = {
    LOST: ApiFaults(dropped=0.1, cut=0.1, delay_seconds=0.1),
    "stale reads": ApiFaults(stale=0.9, cut=0.2),
    "conflicts": ApiFaults(refusals={409: 0.2}),
    "too many requests": ApiFaults(refusals={429: 0.1}),
    "watches that must list again": ApiFaults(expired=0.5, cut=0.2),
    "server errors": ApiFaults(refusals={500: 0.2}),
    "answers lost after they took effect": ApiFaults(lost=0.2),
    "everything at once": ApiFaults(
        refusals={409: 0.02, 429: 0.02, 500: 0.02},
        lost=0.02,
        stale=0.3,
        dropped=0.02,
        cut=0.05,
        delay_seconds=0.02,
    ),
}


@pytest.fixture(scope="module")
def sound():
    """The result without faults, kept for the module."""
    return {}


@pytest.fixture
def play(control_plane, kubelet, proxied_operator):
    namespaces = []

    def play():
        namespace = control_plane.create_namespace()
        namespaces.append(namespace)
        control_plane.await_account(namespace)
        deployments = Deployments(control_plane, namespace)
        deployments.claim()
        # Slow enough for the restart to be amid the rollout.
        kubelet.world.requests_per_poll = 5
        starts = []

        def restart_once():
            proxied_operator.restart_if_lease_lost()
            if not starts and is_judged(deployments.status()):
                starts.append(True)
                proxied_operator.restart()

        story = Story(
            deployments,
            kubelet,
            meanwhile=restart_once,
            situation=proxied_operator.log,
            seconds=200.0,
        )
        kubelet.world.on_effect = lambda effect, before: (
            story.before_promotion() if before and effect.method == "PromoteDraft" else None
        )
        end = story.play()
        assert starts
        return end

    yield play
    for namespace in namespaces:
        control_plane.request("DELETE", f"/api/v1/namespaces/{namespace}")


def is_judged(status):
    return status.get("rollout", {}).get("state") == "Analyzing"


def wanted(faults):
    rates = {name: value for name, value in asdict(faults).items() if name != "delay_seconds"}
    return {name for name, rate in rates.items() if rate}


# Lost events are only found by the operator's relist.
@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(faults, id=name, marks=[pytest.mark.slow] if name == LOST else [])
        for name, faults in FAULTS.items()
    ],
)
def test_ends_as_without_faults(sound, play, proxy, proxied_operator, faults):
    if not sound:
        proxied_operator.start()
        sound.update(play())
        proxied_operator.stop()
    proxy.faults = faults
    proxied_operator.start(wait=False)

    assert play() == sound
    assert proxied_operator.runs
    happened = {name for name, count in proxy.done.items() if count}
    assert happened <= wanted(faults)
    # Of many rare faults, not each need occur.
    assert len(happened) >= min(len(wanted(faults)), 2)


def test_with_two_of_five_requests_refused_a_deployment_is_ready_within_a_minute(
    deployments, kubelet, proxy, proxied_operator
):
    proxy.faults = ApiFaults(refusals={429: 0.4})
    proxied_operator.start(namespaces=[deployments.namespace], wait=False)
    deployments.apply()

    deployments.await_ready(seconds=60)
    assert proxy.done["refusals"] > 10
    deployments.apply(replicas=2)
    deployments.await_status(lambda status: status.get("readyReplicas") == 2, seconds=60)
