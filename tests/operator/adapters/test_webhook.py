"""Verdicts over HTTP to a real server, which is killed and comes back."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from aurora_common.errors import InvalidInputError, UnavailableError
from aurora_operator.adapters import webhook as module
from aurora_operator.adapters.reporting import reporting
from aurora_operator.adapters.webhook import Webhook, read_url
from aurora_operator.domain.manifest.parser import parse_manifest
from aurora_operator.domain.status.deployment import Status, Verdict
from aurora_operator.reconcile import outbox

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DEPLOYMENT = parse_manifest(
    json.dumps(
        {
            "apiVersion": "aurora.dev/v1alpha1",
            "kind": "AuroraDeployment",
            "metadata": {"name": "chat", "namespace": "serving"},
            "spec": {
                "target": {"uri": "file:///models/target"},
                "buffer": {"embedded": {}},
                "modelStore": {"pvc": {"claimName": "models"}},
            },
        }
    ),
    "test",
)
# Appends each body to a file and, with `mute`, dies before it answers.
SERVER = """
import os, signal, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

path, port, mute = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "mute"

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open(path, "ab") as file:
            file.write(body + b"\\n")
        if mute:
            os.kill(os.getpid(), signal.SIGKILL)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass

server = HTTPServer(("127.0.0.1", port), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


class Receiver:
    """A server in a process of its own, on one port."""

    def __init__(self, folder):
        self.path = folder / "received"
        self.port = 0
        self.process = None

    def start(self, *, mute=False):
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", SERVER, str(self.path), str(self.port)),
                "mute" if mute else "well",
            ],
            stdout=subprocess.PIPE,
        )
        self.port = int(self.process.stdout.readline())

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    @property
    def events(self):
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [json.loads(line) for line in lines]


@pytest.fixture
def receiver(tmp_path):
    receiver = Receiver(tmp_path)
    yield receiver
    receiver.kill()


@pytest.fixture
def url_file(tmp_path):
    return tmp_path / "url"


def verdict(number, outcome="Promoted"):
    at = NOW + timedelta(minutes=number)
    return Verdict(
        f"chat-{number}", f"ckpt-{number}", "sha256:ab", outcome, "ReplayBetter", 5, 312, at
    )


def ended(*verdicts, left):
    return Status(history=tuple(reversed(verdicts)), unannounced=left)


async def kept(name, content):
    """The record is none of these tests' business."""


@pytest.fixture
async def sending(url_file, monkeypatch):
    """What sends the statuses that a test gives it; a restarted operator is another one."""
    monkeypatch.setattr(outbox, "_FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(outbox, "_LAST_WAIT_SECONDS", 0.05)
    opened = []

    class Operator:
        def __init__(self):
            self.results, self.failures = [], []
            self.moved = asyncio.Event()
            self.webhook = Webhook(url_file, on_result=self._result)
            self.reports = reporting(
                kept, self.webhook, on_sent=self.moved.set, on_failure=self.failures.append
            )
            opened.append(self)

        def _result(self, delivered):
            self.results.append(delivered)
            self.moved.set()

        def tell(self, status):
            self.reports.send(DEPLOYMENT, 1, before=Status(), after=status)

        async def until(self, condition):
            async with asyncio.timeout(30):
                while not condition():
                    await self.moved.wait()
                    self.moved.clear()

        async def close(self):
            await self.reports.close()
            await self.webhook.close()

    yield Operator
    for operator in opened:
        await operator.close()


def sent(operator, *numbers):
    return {verdict(number).key for number in numbers} <= operator.reports.announcements


async def test_each_verdict_is_one_cloud_event(receiver, url_file, sending):
    receiver.start()
    url_file.write_text(f"http://127.0.0.1:{receiver.port}/hook?token=secret\n")
    operator = sending()
    operator.tell(ended(verdict(1), verdict(2, "WouldRollBack"), left=2))
    await operator.until(lambda: sent(operator, 1, 2))
    first, second = receiver.events
    told = first["data"].pop("verdict")
    assert (told["outcome"], told["requests"], "clauses" in told) == ("Promoted", 312, False)
    assert first == {
        "specversion": "1.0",
        "id": "chat-1-20260101T000100000000Z",
        "source": "/apis/aurora.dev/v1alpha1/namespaces/serving/auroradeployments/chat",
        "type": "dev.aurora.rollout.promoted",
        "subject": "chat-1",
        "time": "2026-01-01T00:01:00.000000Z",
        "datacontenttype": "application/json",
        "data": {"namespace": "serving", "deployment": "chat"},
    }
    assert second["type"] == "dev.aurora.rollout.wouldrollback"
    assert operator.failures == []


async def test_a_receiver_that_is_killed_gets_the_rest_once_it_is_back(receiver, url_file, sending):
    receiver.start()
    url_file.write_text(f"http://127.0.0.1:{receiver.port}/")
    operator = sending()
    operator.tell(ended(verdict(1), left=1))
    await operator.until(lambda: sent(operator, 1))
    receiver.kill()
    operator.tell(ended(verdict(1), verdict(2), verdict(3), left=2))
    await operator.until(lambda: operator.results.count(False) >= 3)
    (cause,) = operator.failures
    assert cause.startswith("the webhook cannot be reached: ")
    receiver.start()
    await operator.until(lambda: sent(operator, 2, 3))
    assert [event["subject"] for event in receiver.events] == ["chat-1", "chat-2", "chat-3"]


async def test_an_event_whose_answer_is_lost_comes_again_under_its_id(receiver, url_file, sending):
    receiver.start(mute=True)
    url_file.write_text(f"http://127.0.0.1:{receiver.port}/")
    operator = sending()
    operator.tell(ended(verdict(1), left=1))
    await operator.until(lambda: operator.results)
    receiver.kill()
    receiver.start()
    await operator.until(lambda: sent(operator, 1))
    first, second = receiver.events
    assert first == second


async def test_a_restarted_operator_sends_what_is_left(receiver, url_file, sending):
    url_file.write_text("http://127.0.0.1:1/")
    operator = sending()
    status = ended(verdict(1), verdict(2), left=1)
    operator.tell(status)
    await operator.until(lambda: operator.results)
    await operator.close()
    receiver.start()
    url_file.write_text(f"http://127.0.0.1:{receiver.port}/")
    again = sending()
    again.tell(status)
    await again.until(lambda: sent(again, 2))
    assert [event["subject"] for event in receiver.events] == ["chat-2"]


@pytest.fixture
def answering():
    """A server whose answers a test chooses, by path."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            status = int(self.path.rpartition("/")[2])
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "/200")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("status", [302, 400, 410, 503])
async def test_only_success_counts_and_no_redirect_is_followed(answering, url_file, status):
    base, asked = answering
    url_file.write_text(f"{base}/secret/{status}")
    webhook = Webhook(url_file)
    with pytest.raises(UnavailableError, match=f"^the webhook answers {status}$"):
        await webhook.send(b"{}", content_type="application/json")
    assert asked == [f"/secret/{status}"]
    url_file.write_text(f"{base}/202")
    await webhook.send(b"{}", content_type="application/json")
    await webhook.close()


async def test_a_receiver_that_does_not_answer_is_given_up_on(url_file, monkeypatch):
    monkeypatch.setattr(module, "_TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url_file.write_text(f"http://127.0.0.1:{silent.getsockname()[1]}/secret")
        webhook = Webhook(url_file)
        with pytest.raises(UnavailableError, match="no answer within") as raised:
            await webhook.send(b"{}", content_type="application/json")
        await webhook.close()
    assert "secret" not in str(raised.value)


async def test_no_error_has_the_url(url_file):
    webhook = Webhook(url_file)
    for text in ("http://secret.invalid/secret", "https://127.0.0.1:1/secret", "ftp://h/secret"):
        url_file.write_text(text)
        with pytest.raises(UnavailableError) as raised:
            await webhook.send(b"{}", content_type="application/json")
        assert "secret" not in str(raised.value).replace(str(url_file), "")
    await webhook.close()


@pytest.mark.parametrize(
    "content", [b"", b"hooks.example.com/x", b"ftp://h/x", b"http://", b"http://[/x", b"\xff"]
)
def test_a_file_without_a_url_is_refused_by_name_alone(url_file, content):
    url_file.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"url (has no URL: use http|is not UTF-8)"):
        read_url(url_file)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(InvalidInputError, match=r"cannot read .*none: No such file"):
        read_url(Path(tmp_path / "none"))
