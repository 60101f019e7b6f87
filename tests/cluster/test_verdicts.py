"""What an ended rollout leaves behind, with a real API server: a record, Events, a notification."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support.deployments import wait_until

from aurora_common.port import free_port

DRAFT = {"initialCheckpoint": {"uri": "pvc://models/draft-0"}}


class Receiver:
    """A webhook that a test starts when it likes."""

    def __init__(self):
        self.events = []
        self.port = free_port()
        self._server = None

    def start(self):
        events = self.events

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                events.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(202)
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}
        )
        self._thread.start()

    def close(self):
        if self._server is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def chat(deployments, kubelet, operator, receiver, tmp_path):
    """A deployment that serves its initial draft, under an operator with a webhook."""
    url_file = tmp_path / "url"
    url_file.write_text(f"http://127.0.0.1:{receiver.port}/secret\n")
    operator.arguments = ("--notify-url-file", url_file)
    deployments.apply(draft=DRAFT)
    operator.start(namespaces=[deployments.namespace])
    deployments.await_ready()
    deployments.await_status(lambda status: status.get("stable"))
    return deployments


def reasons(chat):
    return [event["reason"] for event in chat.objects("v1", "events")]


def test_a_verdict_is_recorded_and_announced_by_whichever_operator_runs(
    chat, kubelet, operator, receiver
):
    digest = kubelet.publish(chat.namespace, "chat", acceptance=0.9)
    status = chat.await_status(lambda status: status.get("history") and status["unrecorded"] == 0)
    (verdict,) = status["history"]
    assert (verdict["outcome"], status["unannounced"]) == ("Promoted", 1)
    ((name, content),) = kubelet.world.records[chat.namespace, "chat"].items()
    record, number = json.loads(content), verdict["id"].removeprefix("chat-")
    assert name == f"{number}-{digest.removeprefix('sha256:')[:12]}"
    assert record["verdict"] == verdict
    assert record["rollout"]["evidence"]["requests"] == verdict["requests"]
    assert record["stable"]["uri"] == DRAFT["initialCheckpoint"]["uri"]
    wait_until(lambda: "NotificationFailed" in reasons(chat))
    assert "RolloutPromoted" in reasons(chat)

    operator.restart()
    receiver.start()
    chat.await_status(lambda status: status["unannounced"] == 0)
    assert {event["subject"] for event in receiver.events} == {verdict["id"]}
    assert receiver.events[0]["data"]["verdict"]["digest"] == digest
    assert 'aurora_operator_notifications_total{result="delivered"} 1.0' in operator.metrics()
    assert "secret" not in operator.log()


def test_of_a_dry_run_no_pod_hears(chat, kubelet, receiver):
    receiver.start()
    effects = []
    kubelet.world.on_effect = lambda effect, before: effects.append(effect.method)
    # No judge runs here: it ends at its deadline.
    chat.apply(draft=DRAFT, rollout={"dryRun": True, "analysis": {"maxDuration": "2s"}})
    digest = kubelet.publish(chat.namespace, "chat", acceptance=0.9)
    status = chat.await_status(lambda status: status.get("history") and not status["unannounced"])
    (verdict,) = status["history"]
    assert (verdict["digest"], verdict["outcome"]) == (digest, "Inconclusive")
    assert verdict["reason"] == "NothingJudged"
    assert set(effects) <= {"PruneCheckpoints"}
    assert status["stable"]["digest"] != digest
    assert {"RolloutReplaying", "RolloutInconclusive"} <= set(reasons(chat))
    assert [event["type"] for event in receiver.events] == ["dev.aurora.rollout.inconclusive"]
