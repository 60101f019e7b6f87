"""`kubectl aurora` against a misbehaving API server; see tests/cluster for a real one."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from aurora_client._cli import run as command_line
from aurora_client._kubectl import app as commands
from aurora_client._kubectl.app import app

PODS = "/api/v1/namespaces/serving/pods"
DEPLOYMENTS = "/apis/aurora.dev/v1alpha1/namespaces/serving/auroradeployments"
BODY = {
    "apiVersion": "aurora.dev/v1alpha1",
    "kind": "AuroraDeployment",
    "metadata": {
        "name": "chat",
        "namespace": "serving",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": [{"manager": "kubectl"}],
    },
    "spec": {},
}


def pod(name, component):
    labels = {"app.kubernetes.io/component": component}
    metadata = {"name": name, "labels": labels, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": metadata, "spec": {"containers": [{}]}}


class Api:
    """Answers by path with (status, content); a list is sent chunk by chunk."""

    def __init__(self):
        self.answers = {}
        self.asked = []


@pytest.fixture
def api(tmp_path, monkeypatch):
    api = Api()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            api.asked.append(self.path)
            path = self.path.partition("?")[0]
            status, content = api.answers.get(path, (404, {"message": "not found"}))
            self.send_response(status)
            if isinstance(content, list):
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for piece in content:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if piece else b"")
                self.close_connection = True
                if b"" not in content:
                    self.wfile.write(b"0\r\n\r\n")
                return
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
        ],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [
            {"name": "serving", "context": {"cluster": "c", "user": "u", "namespace": "serving"}},
            {"name": "bare", "context": {"cluster": "c", "user": "u"}},
        ],
        "current-context": "serving",
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(content))
    monkeypatch.setenv("KUBECONFIG", str(path))
    yield api
    server.shutdown()
    thread.join()
    server.server_close()


def aurora(*arguments):
    return command_line.run(app, arguments, name="kubectl aurora")


def test_a_log_is_streamed(api, capfdbinary):
    api.answers[PODS] = (200, {"items": [pod("chat-buffer-0", "buffer")]})
    api.answers[f"{PODS}/chat-buffer-0/log"] = (200, [b"one\n", "zwölf".encode(), b"\n"])
    assert aurora("logs", "chat", "-c", "redis", "-f", "--tail", "5") == 0
    assert capfdbinary.readouterr().out == "one\nzwölf\n".encode()
    assert api.asked[-1].endswith("log?container=redis&follow=true&tailLines=5")


def test_with_several_pods_it_says_which_one_is_shown(api, capfd):
    pods = [pod("chat-inference-b", "inference"), pod("chat-inference-a", "inference")]
    api.answers[PODS] = (200, {"items": pods})
    api.answers[f"{PODS}/chat-inference-a/log"] = (200, b"a\n")
    api.answers[f"{PODS}/chat-inference-b/log"] = (200, b"b\n")
    assert aurora("logs", "chat") == 0
    captured = capfd.readouterr()
    assert captured.out == "a\n"
    assert "showing chat-inference-a of 2 pods; choose with --pod: chat-inference-b" in captured.err
    assert aurora("logs", "chat", "--pod", "chat-inference-b") == 0
    assert capfd.readouterr() == ("b\n", "")


def test_a_log_that_breaks_off_is_one_line_of_error(api, capfd):
    api.answers[PODS] = (200, {"items": [pod("chat-trainer-0", "trainer")]})
    api.answers[f"{PODS}/chat-trainer-0/log"] = (200, [b"one\n", b""])
    assert aurora("logs", "chat", "-c", "trainer") == 1
    captured = capfd.readouterr()
    assert captured.out == "one\n"
    assert "the log of chat-trainer-0 broke off" in captured.err
    assert len(captured.err.splitlines()) == 1


def test_stored_objects_are_printed_without_managed_fields(api, capsys):
    api.answers[f"{DEPLOYMENTS}/chat"] = (200, BODY)
    api.answers[DEPLOYMENTS] = (200, {"items": [BODY]})
    for output, load in (("json", json.loads), ("yaml", yaml.safe_load)):
        assert aurora("get", "chat", "-o", output) == 0
        stored = load(capsys.readouterr().out)
        assert stored["metadata"]["name"] == "chat"
        assert "managedFields" not in stored["metadata"]
        assert aurora("get", "-o", output) == 0
        (item,) = load(capsys.readouterr().out)["items"]
        assert "managedFields" not in item["metadata"]


def test_one_deployment_shows_its_trainer(api, capsys):
    trainer = {
        "phase": "WaitingForTrajectories",
        "since": "2026-01-01T00:00:00Z",
        "minNewTrajectories": 48,
        "stepsPerRound": 60,
        "checkpoint": "ckpt-3",
        "acceptanceBps": 6250,
    }
    api.answers[f"{DEPLOYMENTS}/chat"] = (200, {**BODY, "status": {"trainer": trainer}})
    api.answers[PODS] = (200, {"items": []})
    assert aurora("get", "chat") == 0
    shown = capsys.readouterr().out
    assert "waiting for 48 new trajectories since " in shown
    assert "; ckpt-3 published, 62.5% accepted on held-out trajectories" in shown


def test_the_namespace_is_the_contexts(api):
    api.answers[DEPLOYMENTS] = (200, {"items": []})
    default = DEPLOYMENTS.replace("serving", "default")
    other = DEPLOYMENTS.replace("serving", "other")
    api.answers[default] = api.answers[other] = (200, {"items": []})
    assert [aurora("get"), aurora("get", "--context", "bare"), aurora("get", "-n", "other")] == [
        0
    ] * 3
    assert api.asked == [DEPLOYMENTS, default, other]


@pytest.mark.parametrize(
    ("status", "content", "says"),
    [
        (403, {"message": "auroradeployments is forbidden: no"}, "is forbidden"),
        (404, b"404 page not found", "install Aurora's chart first"),
        (500, b"<html>", "answers 500"),
    ],
)
def test_a_refusal_is_one_line(api, capsys, status, content, says):
    api.answers[DEPLOYMENTS] = (status, content)
    assert aurora("get") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


def test_no_cluster_is_one_line(api, capsys, tmp_path, monkeypatch):
    for arguments in (("--context", "nowhere"), ("--kubeconfig", str(tmp_path / "none"))):
        assert aurora("get", *arguments) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "no access to a cluster" in line


def test_watch_outlasts_an_unreachable_api_server(api, capsys, monkeypatch):
    api.answers[f"{DEPLOYMENTS}/chat"] = (200, BODY)
    api.answers[PODS] = (200, {"items": [pod("chat-buffer-0", "buffer")]})
    looks = iter([(503, {"message": "away for a moment"}), (200, {"items": []})])

    def next_look(_seconds):
        if (answer := next(looks, None)) is None:
            raise KeyboardInterrupt
        api.answers[PODS] = answer

    monkeypatch.setattr(commands.time, "sleep", next_look)
    assert aurora("watch", "chat") == 130
    assert "chat" in capsys.readouterr().out
    assert len([path for path in api.asked if path.startswith(PODS)]) == 3


def test_history_and_explain_read_the_status(api, capsys):
    past = {"id": "chat-6", "checkpoint": "ckpt-6", "outcome": "Promoted", "reason": "Commanded"}
    api.answers[f"{DEPLOYMENTS}/chat"] = (200, {**BODY, "status": {"history": [past]}})
    assert aurora("history", "chat") == 0
    assert "chat-6" in capsys.readouterr().out
    assert aurora("history", "chat", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)[0]["reason"] == "Commanded"
    assert aurora("explain", "chat", "ckpt-6") == 0
    assert "It was promoted: someone commanded it." in capsys.readouterr().out
    assert aurora("explain", "chat", "chat-1") == 1
    assert "no rollout 'chat-1'" in capsys.readouterr().err
