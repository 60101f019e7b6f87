"""A deployment's authority over a year, with real handshakes at every stage."""

import base64
import json
import ssl
from datetime import UTC, datetime, timedelta

import pytest

from aurora_common.errors import InvalidInputError
from aurora_operator.adapters.authority import (
    due_secrets,
    issued_identity,
    operator_identity,
    secret_names,
)
from aurora_operator.adapters.certificate import new_leaf, read_certificate
from aurora_operator.domain.certificate import SPREADING, leaf_validity
from aurora_operator.domain.manifest.parser import parse_manifest

# Handshakes use the real clock.
START = datetime.now(UTC) - timedelta(days=3)
DAY = timedelta(days=1)


@pytest.fixture
def deployment():
    manifest = {
        "apiVersion": "aurora.dev/v1alpha1",
        "kind": "AuroraDeployment",
        "metadata": {"name": "chat", "namespace": "serving"},
        "spec": {
            "target": {"uri": "file:///models/target"},
            "buffer": {"embedded": {}},
            "modelStore": {"pvc": {"claimName": "models"}},
        },
    }
    return parse_manifest(json.dumps(manifest), "test")


class Cluster:
    """The Secrets in the API server."""

    def __init__(self, deployment):
        self.deployment = deployment
        self.secrets = dict.fromkeys(secret_names("chat"))

    def due(self, now):
        return due_secrets(self.deployment, self.secrets, now, owner_uid="u-1")

    def write(self, secret):
        self.secrets[secret["metadata"]["name"]] = {
            key: base64.b64decode(value) for key, value in secret["data"].items()
        }

    def settle(self, now):
        """Writes until nothing is due; returns what was written."""
        written = []
        for _ in range(10):
            due = self.due(now)
            if not due:
                return written
            for secret in due:
                self.write(secret)
                written.append(secret["metadata"]["name"])
        raise AssertionError("does not settle")

    def end(self, component):
        """A component's end of a connection, with its Secret's current content."""
        return dict(self.secrets[f"chat-{component}-tls"])

    def operator(self, now):
        identity = operator_identity(self.deployment.metadata, self.secrets["chat-ca"], None, now)
        return {
            "ca.crt": identity.authorities,
            "tls.crt": identity.certificate,
            "tls.key": identity.key,
        }


@pytest.fixture
def cluster(deployment):
    return Cluster(deployment)


def _context(tmp_path, end, *, server):
    paths = {}
    for name, content in end.items():
        paths[name] = tmp_path / name
        paths[name].write_bytes(content)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(paths["ca.crt"])
    context.load_cert_chain(paths["tls.crt"], paths["tls.key"])
    context.verify_mode = ssl.CERT_REQUIRED
    if hasattr(ssl, "VERIFY_X509_STRICT"):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


@pytest.fixture
def handshake(tmp_path):
    def shake(client, server, name):
        """A real TLS handshake in memory, both ends verifying; raises if either refuses."""
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = [
            _context(tmp_path, client, server=False).wrap_bio(
                to_client, to_server, server_hostname=name
            ),
            _context(tmp_path, server, server=True).wrap_bio(
                to_server, to_client, server_side=True
            ),
        ]
        waiting = list(ends)
        for _ in range(10):
            for end in list(waiting):
                try:
                    end.do_handshake()
                    waiting.remove(end)
                except ssl.SSLWantReadError:
                    pass
            if not waiting:
                return ends[1].getpeercert()
        raise AssertionError("the handshake does not end")

    return shake


def test_everything_is_issued_once(cluster):
    assert cluster.settle(START) == list(secret_names("chat"))
    assert cluster.due(START + DAY) == ()
    assert set(cluster.secrets["chat-ca"]) == {"tls.crt", "tls.key"}
    assert set(cluster.secrets["chat-buffer-tls"]) == {"ca.crt", "tls.crt", "tls.key"}


def test_the_secrets_are_the_deployments(cluster):
    secret = cluster.due(START)[1]
    assert secret["type"] == "kubernetes.io/tls"
    assert secret["metadata"]["namespace"] == "serving"
    assert secret["metadata"]["labels"]["app.kubernetes.io/instance"] == "chat"
    (owner,) = secret["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("AuroraDeployment", "u-1", True)


def test_leaves_are_renewed_in_time_by_the_same_authority(cluster):
    cluster.settle(START)
    assert cluster.due(START + 59 * DAY) == ()
    bundle = cluster.end("buffer")["ca.crt"]
    assert cluster.settle(START + 61 * DAY) == list(secret_names("chat"))[1:]
    assert cluster.end("buffer")["ca.crt"] == bundle


@pytest.mark.parametrize(
    ("name", "key", "content", "written"),
    [
        ("chat-buffer-tls", "tls.key", b"", ["chat-buffer-tls"]),
        ("chat-buffer-tls", "tls.crt", b"-----BEGIN", ["chat-buffer-tls"]),
        ("chat-buffer-tls", "ca.crt", b"another", ["chat-buffer-tls"]),
        ("chat-ca", "tls.key", b"", list(secret_names("chat"))),
    ],
)
def test_damaged_content_is_replaced(cluster, name, key, content, written):
    cluster.settle(START)
    cluster.secrets[name] = {**cluster.secrets[name], key: content}
    assert cluster.settle(START) == written
    assert cluster.due(START) == ()


def test_a_key_of_another_certificate_is_replaced(cluster):
    cluster.settle(START)
    cluster.secrets["chat-buffer-tls"] = {
        **cluster.end("buffer"),
        "tls.key": cluster.end("trainer")["tls.key"],
    }
    assert cluster.settle(START) == ["chat-buffer-tls"]


def _named(cluster, end, *names):
    """A Secret's content with the same authority's certificate for other names."""
    authority = cluster.secrets["chat-ca"]
    issuing = read_certificate(authority["tls.crt"], authority["tls.key"])
    leaf = new_leaf(issuing, names[0], names, leaf_validity(issuing.validity, START))
    return {**end, "tls.crt": leaf.pem, "tls.key": leaf.key_pem}


@pytest.mark.parametrize(
    "names",
    [
        ("chat-buffer",),
        ("chat-buffer.serving.svc", "chat-buffer"),
        ("chat-trainer.serving.svc",),
    ],
)
def test_a_certificate_for_other_names_is_replaced(cluster, names):
    cluster.settle(START)
    authority = cluster.secrets["chat-ca"]
    cluster.secrets["chat-buffer-tls"] = _named(cluster, cluster.end("buffer"), *names)
    assert cluster.settle(START) == ["chat-buffer-tls"]
    assert cluster.secrets["chat-ca"] == authority
    end = cluster.end("buffer")
    assert read_certificate(end["tls.crt"], end["tls.key"]).dns_names == {"chat-buffer.serving.svc"}


def test_the_operators_identity_is_kept_while_it_is_valid(cluster):
    cluster.settle(START)
    metadata, authority = cluster.deployment.metadata, cluster.secrets["chat-ca"]
    first = operator_identity(metadata, authority, None, START)
    assert operator_identity(metadata, authority, first, START + DAY) is first
    assert operator_identity(metadata, authority, first, START + 61 * DAY) is not first
    leaf = read_certificate(first.certificate, first.key)
    assert leaf.dns_names == {"chat-operator.serving.svc"}
    assert first.key.decode() not in repr(first)
    with pytest.raises(InvalidInputError, match="damaged"):
        operator_identity(metadata, {**authority, "tls.crt": b""}, None, START)


def test_an_identity_of_another_name_is_not_kept(cluster):
    cluster.settle(START)
    metadata, authority = cluster.deployment.metadata, cluster.secrets["chat-ca"]
    other = metadata.model_copy(update={"namespace": "other"})
    held = operator_identity(other, authority, None, START)
    assert operator_identity(metadata, authority, held, START) is not held


def test_cert_managers_certificate_is_used_once_it_has_the_operators_name(cluster):
    cluster.settle(START)
    metadata, end = cluster.deployment.metadata, cluster.end("buffer")
    assert issued_identity(metadata, _named(cluster, end, "aurora-operator")) is None
    issued = _named(cluster, end, "chat-operator.serving.svc")
    found = issued_identity(metadata, issued)
    assert found is not None
    assert (found.certificate, found.key) == (issued["tls.crt"], issued["tls.key"])
    for missing in issued:
        assert issued_identity(metadata, {**issued, missing: b""}) is None
    assert issued_identity(metadata, {}) is None


def test_only_peers_of_the_deployment_are_accepted(cluster, deployment, handshake):
    cluster.settle(START)
    another = Cluster(deployment)
    another.settle(START)
    name = "chat-buffer.serving.svc"
    peer = handshake(cluster.end("trainer"), cluster.end("buffer"), name)
    assert ("DNS", "chat-trainer.serving.svc") in peer["subjectAltName"]
    with pytest.raises(ssl.SSLError):
        handshake(another.end("trainer"), cluster.end("buffer"), name)
    with pytest.raises(ssl.SSLError, match="Hostname mismatch"):
        handshake(cluster.end("trainer"), cluster.end("inference"), name)


def test_no_connection_fails_during_a_rotation_of_the_authority(cluster, handshake, monkeypatch):
    """At each write of a rotation, peers connect with their Secrets from before and after it."""
    # The handshakes use the real clock: the rotation of several days ends now.
    monkeypatch.setattr("aurora_operator.domain.certificate.SPREADING", timedelta(hours=1))
    authority_life = timedelta(days=6)
    monkeypatch.setattr("aurora_operator.adapters.authority.AUTHORITY_LIFETIME", authority_life)
    monkeypatch.setattr("aurora_operator.domain.certificate.LEAF_LIFETIME", authority_life)
    begin = datetime.now(UTC) - timedelta(days=5)
    cluster.settle(begin)
    first = cluster.secrets["chat-ca"]["tls.crt"]
    now, phases = begin, set()
    held = [(now, cluster.end("buffer"), cluster.end("trainer"), cluster.operator(now))]
    while now < begin + timedelta(days=4, hours=12):
        now += timedelta(minutes=10)
        for secret in cluster.due(now):
            cluster.write(secret)
            held.append((now, cluster.end("buffer"), cluster.end("trainer"), cluster.operator(now)))
            phases.add(frozenset(cluster.secrets["chat-ca"]))
            # A pod may still hold any content of the last fifty minutes.
            stale = [entry for entry in held if entry[0] <= now - timedelta(minutes=50)]
            held = stale[-1:] + [entry for entry in held if entry not in stale]
            for _, buffer, _, _ in held:
                for _, _, trainer, operator in held:
                    handshake(trainer, buffer, "chat-buffer.serving.svc")
                    handshake(operator, buffer, "chat-buffer.serving.svc")
    assert cluster.secrets["chat-ca"]["tls.crt"] != first
    assert first not in cluster.end("buffer")["ca.crt"]
    assert any("next.crt" in keys for keys in phases)
    assert any("previous.crt" in keys for keys in phases)
    assert cluster.due(now) == ()


def test_spreading_takes_longer_than_a_kubelet():
    assert timedelta(hours=1) <= SPREADING <= timedelta(days=7)
