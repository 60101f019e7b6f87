"""A real cert-manager issues a deployment's Certificates, and the operator follows."""

import base64
from contextlib import asynccontextmanager

import grpc
import pytest
from cryptography import x509
from support import pod_worker
from support.cert_manager import VERSION
from support.deployments import wait_until
from support.desired import SETTING

from aurora.trainer.v1 import trainer_pb2, trainer_pb2_grpc
from aurora_common.admission import only_peers
from aurora_common.grpc_server import GrpcServer
from aurora_common.port import free_port
from aurora_common.tls import CertificateFolder, Connection
from aurora_operator.domain.certificate import OPERATOR, leaf_name
from aurora_operator.domain.manifest.parser import deployment_from_object
from aurora_operator.domain.objects.cert_manager import certificates

OPERATOR_SECRET = leaf_name("chat", OPERATOR)
TRAINER_SECRET = leaf_name("chat", "trainer")
# The garbage collector discovers new kinds every half minute, and the operator checks problems as
# often.
SECONDS = 120


@pytest.fixture(scope="module")
def issuer(cert_manager):
    return cert_manager.authority("ours")


@pytest.fixture
def seen(monkeypatch):
    """The operator's certificate for pods that start from now on; PEM."""
    found = set()

    def remembering(names):
        admit = only_peers(names)

        def admitted(method, context):
            admit(method, context)
            found.update(context.auth_context()["x509_pem_cert"])

        return admitted

    monkeypatch.setattr(pod_worker, "only_peers", remembering)
    return found


@pytest.fixture
def chat(deployments, kubelet, operator, issuer, seen):
    """A deployment that serves with cert-manager's certificates."""
    deployments.apply(security=issued_by(issuer))
    operator.start(namespaces=[deployments.namespace])
    deployments.await_ready()
    return deployments


def issued_by(issuer):
    return {"tls": {"mode": "CertManager", "issuerRef": issuer}}


def wanted(chat):
    """The deployment's desired Certificates."""
    return certificates(deployment_from_object(chat.get()), SETTING)


def content(chat, name):
    """A Secret's content."""
    found = chat.object("v1", "secrets", name)["data"]
    return {key: base64.b64decode(value) for key, value in found.items()}


def names(certificate):
    alternatives = x509.load_pem_x509_certificate(certificate).extensions
    found = alternatives.get_extension_for_class(x509.SubjectAlternativeName).value
    return found.get_values_for_type(x509.DNSName)


def degraded(status):
    return next((each for each in status.get("conditions", ()) if each["type"] == "Degraded"), {})


def test_every_secret_holds_a_certificate_for_the_desired_names(chat, issuer, seen):
    made = {each["metadata"]["name"]: each for each in chat.objects(VERSION, "certificates")}

    assert made.keys() == {each["metadata"]["name"] for each in wanted(chat)}
    for certificate in wanted(chat):
        secret = content(chat, certificate["spec"]["secretName"])
        assert secret.keys() >= {"ca.crt", "tls.crt", "tls.key"}
        assert names(secret["tls.crt"]) == certificate["spec"]["dnsNames"]
        authority = x509.load_pem_x509_certificate(secret["ca.crt"])
        x509.load_pem_x509_certificate(secret["tls.crt"]).verify_directly_issued_by(authority)
    wait_until(lambda: content(chat, OPERATOR_SECRET)["tls.crt"] in seen)
    assert degraded(chat.status())["status"] == "False"


class Trainer(trainer_pb2_grpc.TrainerServicer):
    async def GetStatus(self, request, context):  # noqa: N802
        return trainer_pb2.GetStatusResponse(published=7)


def written(chat, name, folder):
    folder.mkdir()
    for key, value in content(chat, name).items():
        (folder / key).write_bytes(value)
    return CertificateFolder(folder)


@asynccontextmanager
async def connected(address, own, server_name):
    options = (("grpc.ssl_target_name_override", server_name),)
    connection = Connection(address, certificates=own, options=options)
    try:
        yield trainer_pb2_grpc.TrainerStub(connection.channel())
    finally:
        await connection.close()


async def test_trainer_and_operator_authenticate_by_the_issued_certificates(chat, tmp_path):
    dns_names = {each["metadata"]["name"]: each["spec"]["dnsNames"] for each in wanted(chat)}
    folders = {name: written(chat, name, tmp_path / name) for name in dns_names}
    address = f"127.0.0.1:{free_port()}"
    server = GrpcServer(
        address,
        drain_seconds=0.1,
        admit=only_peers(dns_names[OPERATOR_SECRET]),
        certificates=folders[TRAINER_SECRET],
    )
    server.add(trainer_pb2_grpc.add_TrainerServicer_to_server, Trainer())
    await server.start(["aurora.trainer.v1.Trainer"])
    name = dns_names[TRAINER_SECRET][0]
    request = trainer_pb2.GetStatusRequest()
    try:
        async with connected(address, folders[OPERATOR_SECRET], name) as trainer:
            assert (await trainer.GetStatus(request, timeout=5)).published == 7
        async with connected(address, folders[leaf_name("chat", "buffer")], name) as trainer:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await trainer.GetStatus(request, timeout=5)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    finally:
        await server.stop()


def ask_anew(chat):
    """Renews a certificate as cmctl does."""
    issuing = {
        "type": "Issuing",
        "status": "True",
        "reason": "ManuallyTriggered",
        "message": "Certificate re-issuance manually triggered",
        "lastTransitionTime": chat.get()["metadata"]["creationTimestamp"],
    }
    chat.apply_status(VERSION, "certificates", OPERATOR_SECRET, {"conditions": [issuing]})


@pytest.mark.parametrize(
    "renew",
    [ask_anew, lambda chat: chat.delete_object("v1", "secrets", OPERATOR_SECRET)],
    ids=["asked", "deleted"],
)
def test_a_renewed_certificate_is_used_without_a_restart(chat, operator, seen, renew):
    before = content(chat, OPERATOR_SECRET)["tls.crt"]
    wait_until(lambda: before in seen)
    process = operator.pid

    renew(chat)
    wait_until(
        lambda: (
            chat.is_there("v1", "secrets", OPERATOR_SECRET)
            and content(chat, OPERATOR_SECRET).get("tls.crt", before) != before
        )
    )
    # It checks within minutes, and at once when the deployment changes.
    chat.apply(replicas=2, security=chat.get()["spec"]["security"])

    wait_until(lambda: content(chat, OPERATOR_SECRET)["tls.crt"] in seen)
    assert operator.pid == process
    assert operator.runs


def test_a_deleted_certificate_is_back(chat):
    chat.delete_object(VERSION, "certificates", TRAINER_SECRET)

    wait_until(lambda: chat.is_there(VERSION, "certificates", TRAINER_SECRET), seconds=10)


def test_another_issuer_is_followed_at_once(chat, cert_manager, kubelet, seen):
    chat.apply(security=issued_by(cert_manager.authority("next")))

    def follows():
        operators, trainers = content(chat, OPERATOR_SECRET), content(chat, TRAINER_SECRET)
        return operators["ca.crt"] == trainers["ca.crt"] and operators["tls.crt"] in seen

    first = content(chat, TRAINER_SECRET)["ca.crt"]
    wait_until(lambda: content(chat, TRAINER_SECRET)["ca.crt"] != first)
    wait_until(follows)
    digest = kubelet.publish(chat.namespace, "chat", acceptance=0.9)
    chat.await_status(lambda status: status.get("stable", {}).get("digest") == digest)


def test_an_issuer_that_does_not_exist_is_named(deployments, kubelet, operator, cert_manager):
    absent = {"kind": "ClusterIssuer", "name": "later"}
    deployments.apply(security=issued_by(absent))
    operator.start(namespaces=[deployments.namespace])

    status = deployments.await_status(
        lambda status: degraded(status).get("reason") == "CertificateNotIssued"
    )
    message = degraded(status)["message"]
    assert "ClusterIssuer later has not issued" in message
    assert OPERATOR_SECRET in message
    (condition,) = (
        each
        for each in deployments.object(VERSION, "certificates", OPERATOR_SECRET)["status"][
            "conditions"
        ]
        if each["type"] == "Ready"
    )
    assert condition["message"] in message

    assert cert_manager.authority("later") == absent
    deployments.await_ready(seconds=SECONDS)
    deployments.await_status(
        lambda status: degraded(status).get("status") == "False", seconds=SECONDS
    )


def test_cert_manager_takes_over_from_the_operator(deployments, kubelet, operator, issuer, seen):
    deployments.apply()
    operator.start(namespaces=[deployments.namespace])
    deployments.await_ready()

    deployments.apply(security=issued_by(issuer))

    wait_until(lambda: deployments.is_there("v1", "secrets", OPERATOR_SECRET))
    wait_until(lambda: content(deployments, OPERATOR_SECRET)["tls.crt"] in seen)
    deployments.await_status(lambda status: degraded(status).get("status") == "False")


def test_certificates_go_with_their_deployment(chat):
    owner = chat.get()["metadata"]
    for certificate in chat.objects(VERSION, "certificates"):
        (reference,) = certificate["metadata"]["ownerReferences"]
        assert (reference["uid"], reference["controller"]) == (owner["uid"], True)

    chat.delete()

    wait_until(lambda: not chat.objects(VERSION, "certificates"), seconds=SECONDS)
