"""`up` as a person starts it: a real guardian, operator and gRPC, with stand-in components."""

import json
import os
import signal

import grpc
import pytest
import yaml

from aurora.operator.v1 import operator_pb2


def state_of(status):
    return status.get("rollout", {}).get("state")


def test_a_better_draft_is_promoted_and_a_bad_one_refused(deployment, runs):
    initial = deployment.begin_with(acceptance=0.2)
    guardian = deployment.up()
    deployment.wait_until_ready()
    deployment.wait_for_status(lambda s: s.get("stable", {}).get("digest") == initial.digest)
    assert deployment.status()["stable"]["uri"].startswith("file://")
    better = deployment.publish(1, acceptance=0.7)
    deployment.wait_for_status(lambda s: s.get("stable", {}).get("digest") == better.digest)
    deployment.publish(2, acceptance=None)
    status = deployment.wait_for_status(
        lambda s: state_of(s) == "RolledBack" and s["rollout"]["id"] == "chat-2" and s
    )
    assert status["rollout"]["reason"] == (
        "CheckpointRefused: inference: ckpt-2: lm_head.weight holds NaN"
    )
    assert [entry["outcome"] for entry in status["history"]] == ["RolledBack", "Promoted"]
    drafts = deployment.call("ListDrafts", operator_pb2.ListDraftsRequest()).drafts
    assert [(draft.name, draft.role, draft.outcome) for draft in drafts] == [
        ("ckpt-2", "", "RolledBack"),
        ("ckpt-1", "stable", "Promoted"),
    ]
    assert deployment.log("inference").count("promoted ckpt-1") == 1
    pids = deployment.pids()
    code, text = deployment.down(guardian)
    assert code == 0
    assert text.startswith("aurora: starting chat: target file:///")
    assert not any(runs(pid) for pid in pids.values())
    assert not (deployment.data / "operator.json").exists()


def test_a_better_but_slower_draft_is_rolled_back(deployment):
    initial = deployment.begin_with(acceptance=0.2)
    deployment.up()
    deployment.publish(1, acceptance=0.7, slowdown=2.0)
    status = deployment.wait_for_status(lambda s: state_of(s) == "RolledBack" and s)
    assert status["rollout"]["reason"] == "TimePerOutputTokenHarm"
    assert status["stable"]["digest"] == initial.digest
    evidence = status["rollout"]["evidence"]
    tpot = next(one for one in evidence["guardrails"] if one["name"] == "tpot")
    assert float(tpot["logHarm"]) >= float(evidence["threshold"])


def test_a_proxy_for_the_internet_is_not_asked_for_loopback(deployment, monkeypatch):
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    deployment.begin_with(acceptance=0.2)
    deployment.up()
    deployment.wait_until_ready()
    # The operator calls inference and trainer, too.
    first = deployment.publish(1, acceptance=0.9)
    deployment.wait_for_status(lambda s: s.get("stable", {}).get("digest") == first.digest)


def test_the_first_draft_needs_no_rollout(deployment):
    deployment.up()
    status = deployment.wait_for_status(lambda s: s.get("trainer") and s)
    assert status["trainer"]["phase"] == "WaitingForTrajectories"
    assert status["trainer"]["minNewTrajectories"] == 48
    first = deployment.publish(1, acceptance=0.5)
    deployment.wait_for_status(lambda s: s.get("stable", {}).get("digest") == first.digest)


def test_a_killed_operator_is_restarted_and_the_rollout_continues(deployment, waits):
    deployment.begin_with(acceptance=0.6)
    deployment.content["spec"]["rollout"]["analysis"]["minRequests"] = 600
    deployment.up()
    deployment.wait_until_ready()
    pids = deployment.pids()
    better = deployment.publish(1, acceptance=0.7)
    for requests in (20, 150, 300):
        deployment.wait_for_status(
            lambda s, least=requests: (
                s.get("rollout", {}).get("evidence", {}).get("requests", 0) >= least
            )
        )
        os.kill(deployment.operator()["pid"], signal.SIGKILL)
        waits(deployment.get)
    deployment.wait_for_status(
        lambda s: s.get("stable", {}).get("digest") == better.digest, seconds=60
    )
    assert deployment.pids() == pids
    assert deployment.log("inference").count("promoted ckpt-1") == 1
    evidence = deployment.status()["rollout"]["evidence"]
    # Every counted outcome has its own number.
    assert evidence["requests"] <= evidence["cursors"][0]["after"]


def test_a_killed_inference_gets_its_drafts_again(deployment, waits):
    deployment.begin_with(acceptance=0.2)
    deployment.up()
    deployment.wait_until_ready()
    better = deployment.publish(1, acceptance=0.7)
    deployment.wait_for_status(lambda s: s.get("stable", {}).get("digest") == better.digest)
    os.kill(deployment.pids()["inference"], signal.SIGKILL)
    waits(lambda: "slot='stable', draft=Draft(checkpoint='ckpt-1'" in deployment.log("operator"))
    deployment.wait_until_ready()
    parts = {part.name: part for part in deployment.get().components}
    assert parts["inference"].restarts == 1


def test_a_killed_guardian_leaves_nothing(deployment, runs, waits):
    guardian = deployment.up()
    deployment.wait_until_ready()
    pids = [*deployment.pids().values(), deployment.operator()["pid"]]
    guardian.kill()
    guardian.communicate()
    waits(lambda: not any(runs(pid) for pid in pids))


def test_commands(deployment, waits):
    deployment.begin_with(acceptance=0.5)
    deployment.content["spec"]["rollout"]["analysis"]["minRequests"] = 100_000
    deployment.up()
    deployment.wait_until_ready()
    with pytest.raises(grpc.RpcError, match="no rollout is in progress: nothing to abort"):
        deployment.command("abort")
    with pytest.raises(grpc.RpcError, match="no rollout is in progress: nothing to pause"):
        deployment.command("pause")
    with pytest.raises(grpc.RpcError, match="nothing is paused: nothing to resume"):
        deployment.command("resume")
    deployment.publish(1, acceptance=0.5)
    deployment.wait_for_status(lambda s: state_of(s) == "Analyzing")
    with pytest.raises(grpc.RpcError, match="rollout 'chat-9' is not in progress; 'chat-1' is"):
        deployment.command("pause", "chat-9")
    deployment.command("pause")
    assert deployment.status()["paused"]
    deployment.command("resume")
    assert not deployment.status()["paused"]
    with pytest.raises(grpc.RpcError, match="rollout 'chat-9' is not in progress; 'chat-1' is"):
        deployment.command("promote", "chat-9")
    answer = deployment.command("abort", "chat-1")
    assert (answer.rollout_id, answer.state) == ("chat-1", "RolledBack")
    second = deployment.publish(2, acceptance=0.5)
    deployment.wait_for_status(lambda s: s["rollout"]["id"] == "chat-2")
    assert deployment.command("promote").state == "Promoting"
    deployment.wait_for_status(lambda s: s["stable"]["digest"] == second.digest)


def test_a_watch_streams_changes(deployment):
    deployment.begin_with(acceptance=0.2)
    deployment.up()
    deployment.wait_until_ready()
    deployment.publish(1, acceptance=0.7)
    states = []
    with grpc.insecure_channel(deployment.operator()["address"]) as channel:
        from aurora.operator.v1 import operator_pb2_grpc

        stub = operator_pb2_grpc.OperatorStub(channel)
        stream = stub.WatchDeployment(operator_pb2.WatchDeploymentRequest(), timeout=30)
        for found in stream:
            assert found.name == "chat"
            state = state_of(json.loads(found.status_json))
            if state is not None and state not in states[-1:]:
                states.append(state)
            if state == "Promoted":
                break
        stream.cancel()
    assert states[-1] == "Promoted"
    assert "Analyzing" in states


def test_old_checkpoints_are_removed(deployment, waits):
    deployment.begin_with(acceptance=0.5)
    deployment.content["spec"]["rollout"]["paused"] = True
    deployment.up()
    for number in range(1, 6):
        deployment.publish(number, acceptance=0.5)
    folder = deployment.data / "pvc" / "models" / "chat"
    waits(lambda: len(list(folder.iterdir())) == 2)
    assert sorted(entry.name.split("-")[1] for entry in folder.iterdir()) == ["4", "5"]


def test_a_changed_manifest_restarts_only_what_it_changes(deployment, waits):
    guardian = deployment.up()
    deployment.wait_until_ready()
    pids = deployment.pids()
    deployment.content["spec"]["trainer"] = {"suspend": True}
    deployment.content["spec"]["buffer"]["retention"] = {"maxAge": "1h"}
    deployment.manifest.write_text(yaml.safe_dump(deployment.content))
    guardian.send_signal(signal.SIGUSR1)
    # Both end at once, and until the buffer runs again, only the others count as ready.
    waits(lambda: "trainer" not in deployment.pids())
    waits(lambda: deployment.pids().get("buffer") not in (None, pids["buffer"]))
    deployment.wait_until_ready()
    after = deployment.pids()
    assert (after["redis"], after["inference"]) == (pids["redis"], pids["inference"])
    deployment.wait_for_status(lambda s: s["observedGeneration"] == 2)


def test_further_trainers_are_processes_that_come_and_go(deployment, runs, waits):
    deployment.content["spec"]["trainer"] = {"replicas": 3}
    deployment.content["spec"]["security"] = {"trainerTraffic": "Plaintext"}
    guardian = deployment.up()
    deployment.wait_until_ready()
    before = deployment.pids()
    assert {"trainer", "rank-1", "rank-2"} < set(before)
    deployment.content["spec"]["trainer"] = {}
    deployment.manifest.write_text(yaml.safe_dump(deployment.content))
    guardian.send_signal(signal.SIGUSR1)
    waits(lambda: not {"rank-1", "rank-2"} & set(deployment.pids()))
    assert not any(runs(before[name]) for name in ("rank-1", "rank-2"))
    assert deployment.pids()["inference"] == before["inference"]


def test_a_second_start_is_refused(deployment):
    first = deployment.up()
    deployment.wait_until_ready()
    second = deployment.up()
    _, text = second.communicate(timeout=30)
    assert second.returncode == 1
    assert f"is in use: an aurora with pid {first.pid} runs there; stop it first" in text
    assert deployment.get() is not None


def refused(deployment, *flags):
    guardian = deployment.up(*flags)
    _, text = guardian.communicate(timeout=30)
    assert guardian.returncode == 1
    assert "Traceback" not in text
    assert deployment.pids() == {}
    return text


def test_a_wrong_manifest_starts_nothing(deployment):
    deployment.content["spec"]["replica"] = 2
    deployment.content["spec"]["target"]["dtype"] = "fp8"
    text = refused(deployment)
    assert "spec.target.dtype" in text
    assert "spec.replica: unknown field" in text
    assert not deployment.data.exists()


def test_a_missing_target_starts_nothing(deployment):
    (deployment.folder / "target" / "config.json").unlink()
    assert "no model in" in refused(deployment)


def test_a_draft_with_another_digest_starts_nothing(deployment):
    deployment.begin_with(acceptance=0.5)
    draft = deployment.content["spec"]["draft"]["initialCheckpoint"]
    draft["digest"] = "sha256:" + "0" * 64
    assert "spec.draft.initialCheckpoint.digest is sha256:000" in refused(deployment)


def test_a_person_sees_what_starts(deployment):
    guardian = deployment.up()
    deployment.wait_until_ready()
    http, grpc_address = (deployment.operator()[name] for name in ("http", "grpc"))
    code, text = deployment.down(guardian)
    assert code == 0
    lines = text.splitlines()
    assert all(line.startswith("aurora: ") and line.isprintable() for line in lines)
    assert f"aurora: chat serves: base_url http://{http}/v1, gRPC {grpc_address}" in lines
    assert any(line.startswith(f"aurora: try: curl http://{http}/v1/") for line in lines)
    for name in ("redis", "buffer", "inference", "trainer"):
        assert sum(line.startswith(f"aurora: {name} is ready after ") for line in lines) == 1
    assert lines[-1] == "aurora: stopping"


def test_a_restart_is_a_line_with_its_cause(deployment, waits):
    (deployment.folder / "target" / "exit").write_text("once 1 the disk is full")
    guardian = deployment.up()
    deployment.wait_until_ready()
    killed = deployment.pids()["buffer"]
    os.kill(killed, signal.SIGKILL)
    waits(lambda: deployment.pids().get("buffer") not in (None, killed))
    deployment.wait_until_ready()
    _, text = deployment.down(guardian)
    assert "aurora: inference exited with code 1: the disk is full; restart 1\n" in text
    assert "aurora: buffer was killed by SIGKILL; restart 1\n" in text


def test_a_model_that_cannot_be_loaded_ends_it(deployment, runs, waits):
    (deployment.folder / "target" / "exit").write_text("78 model.safetensors is damaged")
    guardian = deployment.up()
    _, text = guardian.communicate(timeout=60)
    assert guardian.returncode == 1
    assert text.splitlines()[-1] == (
        "aurora: inference cannot start: it exited with code 78: model.safetensors is damaged"
    )
    assert deployment.pids() == {}


def test_a_killed_operator_is_a_line(deployment, waits):
    guardian = deployment.up()
    deployment.wait_until_ready()
    before = deployment.operator()["pid"]
    os.kill(before, signal.SIGKILL)
    waits(lambda: (deployment.operator() or {"pid": before})["pid"] != before)
    waits(deployment.get)
    _, text = deployment.down(guardian)
    assert "aurora: operator exited with code -9; restarting\n" in text
    assert text.count("aurora: inference is ready after") == 1


def test_a_manifest_from_standard_input(deployment, tmp_path, waits):
    piped = tmp_path / "piped.yaml"
    piped.write_text(f"{yaml.safe_dump(deployment.content)}---\nkind: Namespace\n---\n")
    with piped.open() as text:
        guardian = deployment.up(stdin=text)
    deployment.wait_until_ready()
    # Its copy is what is reloaded.
    deployment.content["spec"]["trainer"] = {"suspend": True}
    (deployment.data / "manifest.yaml").write_text(yaml.safe_dump(deployment.content))
    guardian.send_signal(signal.SIGUSR1)
    waits(lambda: "trainer" not in deployment.pids())
    _, said = deployment.down(guardian)
    assert said.startswith("aurora: ignoring objects of other kinds: Namespace\n")


def test_one_port_for_both_starts_nothing(deployment):
    text = refused(deployment, "--http-port", "18123", "--grpc-port", "18123")
    assert text == "aurora: --http-port and --grpc-port are both 18123; each needs its own\n"


def test_a_taken_port_starts_nothing(deployment):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = refused(deployment, "--http-port", str(port))
    assert f"port {port} is taken; choose another one with --http-port" in text


def test_a_data_directory_that_cannot_be_created(deployment):
    deployment.data.write_text("a file")
    guardian = deployment.up()
    _, text = guardian.communicate(timeout=30)
    assert guardian.returncode == 1
    assert "cannot make the folder" in text


def test_the_target_is_immutable(deployment, waits):
    guardian = deployment.up()
    waits(lambda: deployment.pids())
    deployment.down(guardian)
    deployment.content["spec"]["target"]["dtype"] = "float32"
    text = refused(deployment)
    assert "spec.target.dtype is immutable" in text


def test_a_damaged_status_is_named(deployment):
    deployment.data.mkdir()
    (deployment.data / "status.json").write_text("{")
    text = refused(deployment)
    assert "status.json is damaged" in text
