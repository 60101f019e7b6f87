"""What a deployment leaves in the model store and in Redis' claim, and the next one finds."""

from support.deployments import wait_until

DRAFT = {"initialCheckpoint": {"uri": "pvc://models/draft-0"}}


def is_gone(deployments):
    labels = "app.kubernetes.io/instance=chat"
    kinds = (("v1", "pods"), ("apps/v1", "statefulsets"), ("apps/v1", "deployments"))
    return not any(deployments.objects(*kind, labels) for kind in kinds)


def claims(deployments):
    labels = "app.kubernetes.io/instance=chat"
    found = deployments.objects("v1", "persistentvolumeclaims", labels)
    return {body["metadata"]["name"]: body["metadata"]["uid"] for body in found}


def test_a_promoted_draft_survives_its_deployment(deployments, kubelet, operator):
    deployments.apply(draft=DRAFT)
    operator.start(namespaces=[deployments.namespace])
    deployments.await_ready()
    deployments.await_status(lambda status: status.get("stable"))
    better = kubelet.publish(deployments.namespace, "chat", acceptance=0.9)
    deployments.await_status(lambda status: status.get("history"))
    wait_until(lambda: (deployments.namespace, "chat") in kubelet.world.recorded)

    deployments.delete()
    wait_until(lambda: is_gone(deployments), seconds=60)
    deployments.apply(draft=DRAFT)

    status = deployments.await_status(
        lambda status: status.get("stable", {}).get("digest") == better, seconds=60
    )
    assert "rollout" not in status
    wait_until(
        lambda: (
            [
                worker.standin.stable and worker.standin.stable.digest
                for worker in kubelet.workers(deployments.namespace, "inference")
            ]
            == [better]
        )
    )
    # And it goes on from there: only what is new is tried.
    best = kubelet.publish(deployments.namespace, "chat", acceptance=0.99)
    status = deployments.await_status(
        lambda status: status.get("stable", {}).get("digest") == best, seconds=60
    )
    assert [each["id"] for each in status["history"]] == ["chat-2"]
    assert operator.errors() == []


def test_redis_claim_stays_by_choice_and_is_used_again(deployments, kubelet, operator):
    retained = {"embedded": {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain"}}}
    deployments.apply(buffer=retained)
    operator.start(namespaces=[deployments.namespace])
    deployments.await_ready()
    before = wait_until(lambda: claims(deployments))
    assert set(before) == {"redis-chat-buffer-0"}

    deployments.delete()
    wait_until(lambda: is_gone(deployments), seconds=60)
    assert claims(deployments) == before

    deployments.apply(buffer=retained)
    deployments.await_ready(seconds=60)
    wait_until(lambda: kubelet.workers(deployments.namespace, "buffer"))
    assert claims(deployments) == before

    # The choice can be taken back.
    deployments.apply(buffer={"embedded": {}})
    policy = {"whenDeleted": "Delete", "whenScaled": "Retain"}
    wait_until(
        lambda: (
            deployments.object("apps/v1", "statefulsets", "chat-buffer")["spec"][
                "persistentVolumeClaimRetentionPolicy"
            ]
            == policy
        )
    )
    wait_until(
        lambda: all(
            body["metadata"].get("ownerReferences")
            for body in deployments.objects(
                "v1", "persistentvolumeclaims", "app.kubernetes.io/instance=chat"
            )
        )
    )
    deployments.delete()
    wait_until(lambda: claims(deployments) == {}, seconds=60)
