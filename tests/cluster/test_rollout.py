def test_promotes_a_better_draft_on_every_pod(deployments, kubelet, operator):
    deployments.apply(replicas=2, draft={"initialCheckpoint": {"uri": "pvc://models/draft-0"}})
    operator.start(namespaces=[deployments.namespace])
    deployments.await_ready()

    digest = kubelet.publish(deployments.namespace, "chat", acceptance=0.9)
    status = deployments.await_status(lambda status: status.get("history"))

    assert status["history"][0]["outcome"] == "Promoted"
    pods = [
        worker.standin.stable.digest
        for worker in kubelet.workers(deployments.namespace, "inference")
    ]
    assert pods == [digest, digest]
