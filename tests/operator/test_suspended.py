"""`up` with `spec.suspend`: the processes end, and what they were about goes on later."""

import signal

import yaml


def suspend(deployment, guardian, suspended):
    deployment.content["spec"]["suspend"] = suspended
    deployment.manifest.write_text(yaml.safe_dump(deployment.content))
    guardian.send_signal(signal.SIGUSR1)


def ready(status):
    return next(
        ((one["status"], one["reason"]) for one in status.get("conditions", ())
         if one["type"] == "Ready"),
        None,
    )  # fmt: skip


def is_suspended(status):
    return any(
        (one["type"], one["status"]) == ("Suspended", "True") for one in status["conditions"]
    )


def test_a_rollout_goes_on_where_it_was(deployment, runs, waits):
    initial = deployment.begin_with(acceptance=0.5)
    deployment.content["spec"]["rollout"]["analysis"]["minRequests"] = 100_000
    guardian = deployment.up()
    deployment.wait_until_ready()
    deployment.publish(1, acceptance=0.6)
    before = deployment.wait_for_status(
        lambda s: s.get("rollout", {}).get("evidence", {}).get("requests", 0) > 50 and s
    )
    pids = deployment.pids()

    suspend(deployment, guardian, True)
    status = deployment.wait_for_status(lambda s: is_suspended(s) and s)

    assert not any(runs(pid) for pid in pids.values())
    assert not deployment.get().components
    assert ready(status) == ("False", "Suspended")
    held = status["rollout"]
    assert "pausedAt" in held["clock"]
    assert held["evidence"]["requests"] >= before["rollout"]["evidence"]["requests"]

    suspend(deployment, guardian, False)
    deployment.wait_until_ready()
    status = deployment.wait_for_status(
        lambda s: s["rollout"]["evidence"]["requests"] > held["evidence"]["requests"] and s
    )
    assert status["rollout"]["id"] == held["id"]
    assert status["rollout"]["evidence"]["crashes"] == 0
    assert status["stable"]["digest"] == initial.digest
    assert ready(deployment.wait_for_status(lambda s: ready(s)[0] == "True" and s))

    _, text = deployment.down(guardian)
    assert "aurora: inference stopped\n" in text
    assert text.count("aurora: inference is ready after") == 2


def test_one_that_begins_suspended_starts_nothing_and_says_so(deployment):
    deployment.content["spec"]["suspend"] = True
    guardian = deployment.up()
    deployment.wait_for_status(lambda s: s.get("conditions") and is_suspended(s))
    assert deployment.pids() == {}
    _, text = deployment.down(guardian)
    assert "aurora: chat is suspended: nothing runs until spec.suspend is false\n" in text
