"""`up` with a model store that an earlier deployment used: its promoted draft serves again."""

import pytest


def promoted(deployment):
    """The digest that a first deployment promoted; its processes are stopped."""
    deployment.begin_with(acceptance=0.2)
    guardian = deployment.up()
    deployment.wait_until_ready()
    better = deployment.publish(1, acceptance=0.9)
    deployment.wait_for_status(lambda s: s.get("history"))
    record = deployment.data / "pvc" / "models" / "chat" / "stable.json"
    deployment.wait_for_status(lambda _: record.exists())
    deployment.down(guardian)
    # All that the operator itself remembers.
    (deployment.data / "status.json").unlink()
    (deployment.data / "deployment.json").unlink()
    return better.digest


@pytest.mark.parametrize("policy", ["LastPromoted", "Never"])
def test_a_deployment_without_a_status_of_its_own(deployment, policy):
    better = promoted(deployment)
    deployment.content["spec"]["modelStore"]["restorePolicy"] = policy
    initial = deployment.content["spec"]["draft"]["initialCheckpoint"]["digest"]

    deployment.up()
    deployment.wait_until_ready()

    if policy == "LastPromoted":
        status = deployment.wait_for_status(
            lambda s: s.get("stable", {}).get("digest") == better and s
        )
        assert "rollout" not in status
        assert status["stable"]["uri"].startswith("file://")
    else:
        # It is a candidate like any other.
        status = deployment.wait_for_status(lambda s: s.get("history") and s)
        assert [one["id"] for one in status["history"]] == ["chat-1"]
        assert initial != better
