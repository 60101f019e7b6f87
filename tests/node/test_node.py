"""The basis of the other tests: restricted pods, Services, DNS and claims on this node."""

import urllib.request

from harness.host_folder import claimed, mounts, python_folders, volumes
from harness.installation import ANOTHER_IMAGE
from harness.pod import restricted

_ANSWER = """
import http.server, socket, torch

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        address = socket.gethostbyname("kubernetes.default.svc.cluster.local")
        self.wfile.write(f"{torch.ones(2).sum().item()} {address}".encode())

http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""


def test_a_restricted_pod_serves_behind_a_service(cluster):
    namespace = cluster.api.create_namespace()
    cluster.api.await_account(namespace)
    folders = python_folders()
    for claim, folder in folders.items():
        cluster.apply(*claimed(namespace, claim, folder))
    cluster.apply(_pod(namespace, folders), _service(namespace))

    cluster.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/a", "--timeout=50s")
    address = cluster.get("-n", namespace, "service/a")["spec"]["clusterIP"]

    def answers():
        try:
            with urllib.request.urlopen(f"http://{address}", timeout=2) as response:
                return response.read() == b"2.0 10.96.0.1"
        except OSError:
            return False

    cluster.await_that(answers, "the Service answers", 15)
    assert "GET / " in cluster.kubectl("-n", namespace, "logs", "a")


def _pod(namespace, folders):
    container = {
        "name": "a",
        "image": ANOTHER_IMAGE,
        "command": ["python", "-c", _ANSWER],
        "readinessProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1},
        "volumeMounts": mounts(folders),
    }
    pod = restricted(namespace, "a", container)
    pod["spec"]["volumes"] += volumes(folders)
    return pod


def _service(namespace):
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "a", "namespace": namespace},
        "spec": {"selector": {"app": "a"}, "ports": [{"port": 80, "targetPort": 8000}]},
    }
