"""What the operator reads of cert-manager, and when it checks again."""

import base64
import time

import pytest
from support.certificate import Authority

from aurora_common.errors import NotFoundError
from aurora_operator.cluster.child_store import known
from aurora_operator.cluster.credentials import Credentials
from aurora_operator.cluster.directory import Tracked
from aurora_operator.cluster.kinds import CERTIFICATE, SECRET, Key
from aurora_operator.cluster.metrics import Metrics
from aurora_operator.domain.manifest.parser import deployment_from_object
from aurora_operator.domain.objects.cert_manager import certificates
from aurora_operator.domain.objects.setting import Setting

BODY = {
    "apiVersion": "aurora.dev/v1alpha1",
    "kind": "AuroraDeployment",
    "metadata": {"name": "chat", "namespace": "default", "uid": "u-1", "resourceVersion": "1"},
    "spec": {
        "target": {"uri": "pvc://models/target"},
        "modelStore": {"pvc": {"claimName": "models"}},
        "buffer": {"embedded": {}},
        "security": {"tls": {"mode": "CertManager", "issuerRef": {"name": "ours"}}},
    },
}
DEPLOYMENT = deployment_from_object(BODY)
SETTING = Setting("inference:1", "buffer:1", "trainer:1", "aurora-system", {}, owner_uid="u-1")
# The operator's Certificate is the last.
*_, WANTED = certificates(DEPLOYMENT, SETTING)
LONG_SECONDS, SHORT_SECONDS = 400, 10


class FakeApi:
    """Certificates without a Secret yet; None if their kind does not exist."""

    def __init__(self):
        self.certificates = []
        self.secret = None

    async def list(self, kind, namespace, *, labels):
        assert kind == CERTIFICATE
        assert "app.kubernetes.io/instance=chat" in labels
        if self.certificates is None:
            raise NotFoundError("no such kind")
        return self.certificates

    async def get(self, kind, namespace, name):
        assert (kind, name) == (SECRET, WANTED["spec"]["secretName"])
        if self.secret is None:
            raise NotFoundError(name)
        return self.secret


@pytest.fixture
def api():
    return FakeApi()


@pytest.fixture
def tracked():
    return Tracked(Key("default", "chat"), known(BODY))


@pytest.fixture
def look(api, tracked):
    """Checks now; the problems, and the seconds until the next check."""
    credentials = Credentials(api, Metrics())

    async def look(generation=1):
        tracked.certificates_due = 0.0
        problems = await credentials.reconcile(tracked, DEPLOYMENT, generation, is_new=False)
        return problems, tracked.certificates_due - time.monotonic()

    return look


@pytest.fixture
def issue(api, tmp_path):
    """Has cert-manager issue for `names` (default: the desired ones); returns the certificate.

    The authority is another one each time.
    """

    def issue(*names):
        folder = Authority().issue(tmp_path / "tls", *(names or WANTED["spec"]["dnsNames"]))
        data = {
            name: base64.b64encode((folder / name).read_bytes()).decode()
            for name in ("ca.crt", "tls.crt", "tls.key")
        }
        api.secret = {"metadata": {}, "data": data}
        api.certificates = [certificate("True")]
        return (folder / "tls.crt").read_bytes()

    return issue


def certificate(ready):
    condition = {
        "type": "Ready",
        "status": ready,
        "message": "Secret does not exist",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1,
    }
    created = {"generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {
        **WANTED,
        "metadata": {**WANTED["metadata"], **created},
        "status": {"conditions": [condition]},
    }


async def test_an_issued_certificate_is_checked_once_more_and_then_rarely(look, issue, tracked):
    issued = issue()

    problems, seconds = await look()
    assert (problems, tracked.identity.certificate) == ([], issued)
    assert 0 < seconds < SHORT_SECONDS
    assert (await look())[1] > LONG_SECONDS
    # Another generation may request others.
    assert (await look(generation=2))[1] < SHORT_SECONDS
    renewed = issue()
    assert (await look(generation=2))[1] > LONG_SECONDS
    assert tracked.identity.certificate == renewed


async def test_a_certificate_is_used_until_its_successor_is_issued(look, issue, api, tracked):
    issued = issue()
    await look()
    await look()

    api.secret, api.certificates = None, [certificate("False")]
    (problem,), seconds = await look()

    assert tracked.identity.certificate == issued
    assert seconds < SHORT_SECONDS
    assert problem.message.endswith(f"{WANTED['metadata']['name']}: Secret does not exist")


async def test_a_certificate_for_a_former_name_is_not_used(look, issue, tracked):
    issue("aurora-operator")
    for _ in range(2):
        problems, seconds = await look()
        assert (problems, tracked.identity) == ([], None)
        assert seconds < SHORT_SECONDS

    issued = issue()
    await look()
    assert tracked.identity.certificate == issued


async def test_certificates_of_a_namesake_are_ignored(look, issue, api):
    issue()
    foreign = certificate("False")
    foreign["metadata"] = {**foreign["metadata"], "ownerReferences": []}
    api.certificates.append(foreign)

    assert (await look())[0] == []


async def test_without_cert_manager_there_is_no_problem(look, api, tracked):
    api.certificates = None

    problems, seconds = await look()

    assert (problems, tracked.identity) == ([], None)
    assert seconds < SHORT_SECONDS


async def test_an_issuer_that_names_no_authority_is_reported(api, look, issue):
    issue()
    del api.secret["data"]["ca.crt"]
    (problem,), seconds = await look()
    assert problem.reason == "CertificateNotIssued"
    assert problem.message == (
        "Secret chat-operator-tls has no ca.crt: use an issuer that names its authority"
    )
    assert 0 < seconds < LONG_SECONDS
