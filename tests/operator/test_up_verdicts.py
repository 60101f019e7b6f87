"""What ended rollouts leave behind on one machine; stand-in components under a real operator."""

import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@pytest.fixture
def receiver():
    """A webhook: its URL and the events that it got."""
    events = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            events.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/secret", events
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def url_file(tmp_path):
    return tmp_path / "url"


def test_a_verdict_is_recorded_and_sent_also_after_the_operator_was_killed(
    deployment, receiver, url_file, waits
):
    url, events = receiver
    url_file.write_text("http://127.0.0.1:1/away")
    deployment.begin_with(acceptance=0.2)
    deployment.up("--notify-url-file", str(url_file))
    deployment.wait_until_ready()
    better = deployment.publish(1, acceptance=0.7)
    status = deployment.wait_for_status(lambda s: s.get("history") and s["unrecorded"] == 0 and s)
    name = f"1-{better.digest.removeprefix('sha256:')[:12]}"
    path = deployment.data / "pvc" / "models" / "chat" / "rollouts" / f"{name}.json"
    record = json.loads(path.read_text())
    assert record["verdict"] == status["history"][0]
    assert record["rollout"]["evidence"]["path"]["logE"]
    assert status["unannounced"] == 1

    url_file.write_text(url)
    os.kill(deployment.operator()["pid"], signal.SIGKILL)
    deployment.wait_for_status(lambda s: s["unannounced"] == 0)
    assert {event["subject"] for event in events} == {"chat-1"}
    assert "secret" not in deployment.log("operator")


def test_of_a_dry_run_no_inference_hears(deployment):
    initial = deployment.begin_with(acceptance=0.2)
    # No judge runs here: it ends at its deadline.
    deployment.content["spec"]["rollout"] = {"dryRun": True, "analysis": {"maxDuration": "1s"}}
    deployment.up()
    deployment.wait_until_ready()
    deployment.wait_for_status(lambda s: s.get("stable"))
    deployment.publish(1, acceptance=0.7)
    status = deployment.wait_for_status(lambda s: s.get("history") and s)
    assert (status["rollout"]["state"], status["history"][0]["reason"]) == (
        "Inconclusive",
        "NothingJudged",
    )
    assert status["stable"]["digest"] == initial.digest
    assert "ckpt-1" not in deployment.log("inference")


def test_a_webhooks_file_without_a_url_starts_nothing(deployment, url_file):
    url_file.write_text("hooks.example.com/secret")
    guardian = deployment.up("--notify-url-file", str(url_file))
    _, text = guardian.communicate(timeout=60)
    assert guardian.returncode == 1
    assert "url has no URL: use http://host/path or https://host/path" in text
    assert "secret" not in text
    assert not (deployment.data / "operator.json").exists()
