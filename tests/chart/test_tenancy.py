"""With tenancy.podTemplate Restricted, an AuroraDeployment reaches nothing beyond itself."""

import copy
import itertools
import json

import pytest
import yaml
from kubernetes.client.exceptions import ApiException
from support.control_plane import client_of, request
from support.deployments import wait_until
from support.manifest import MINIMAL

COMPONENTS = ("inference", "buffer", "trainer")
OBJECTS = "/apis/aurora.dev/v1alpha1/namespaces/{}/auroradeployments"
POLICIES = "/apis/admissionregistration.k8s.io/v1/"
PATHS = {
    "ValidatingAdmissionPolicy": f"{POLICIES}validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": f"{POLICIES}validatingadmissionpolicybindings",
}
_PROBE = {"httpGet": {"path": "/", "port": 80, "host": "169.254.169.254"}}


def main(component, **fields):
    """A template that adds to a component's own container."""
    return {"containers": [{"name": component, **fields}]}


def sidecar(**fields):
    return {"containers": [{"name": "extra", "image": "extra", **fields}]}


def volume(**source):
    return {"volumes": [{"name": "extra", **source}]}


def secret_key(name="theirs"):
    return [{"name": "A", "valueFrom": {"secretKeyRef": {"name": name, "key": "a"}}}]


def _nearby(**selector):
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {}, **selector}
    return {
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    }


# A PodSpec, and what the refusal says of it.
ATTACKS = {
    "another account": ({"serviceAccountName": "admin"}, "serviceAccountName may not be set"),
    "its former name": ({"serviceAccount": "admin"}, "serviceAccount may not be set"),
    "the default account": ({"serviceAccountName": None}, "serviceAccountName may not be set"),
    "a token": ({"automountServiceAccountToken": True}, "automountServiceAccountToken may only be"),
    "a token by null": ({"automountServiceAccountToken": None}, "automountServiceAccountToken may"),
    "a projected token": (
        volume(projected={"sources": [{"serviceAccountToken": {"path": "token"}}]}),
        "volume extra: serviceAccountToken may not be set",
    ),
    "a pod certificate": (
        volume(projected={"sources": [{"podCertificate": {"signerName": "a/b"}}]}),
        "volume extra: podCertificate may not be set",
    ),
    "the host's files": (volume(hostPath={"path": "/"}), "volume extra: hostPath may not be set"),
    "the host's processes": ({"hostPID": True}, "hostPID may only be false"),
    "the host's memory": ({"hostIPC": True}, "hostIPC may only be false"),
    "the host's network": ({"hostNetwork": True}, "hostNetwork may only be false"),
    "the host's users": ({"hostUsers": True}, "hostUsers may only be false"),
    "a port of the host": (
        sidecar(ports=[{"containerPort": 80, "hostPort": 80}]),
        "container extra: ports.hostPort may not be set",
    ),
    "a node": ({"nodeName": "control-plane"}, "nodeName may not be set"),
    "another's Secret as a volume": (volume(secret={"secretName": "theirs"}), "Secret theirs is"),
    "another's Secret, projected": (
        volume(projected={"sources": [{"secret": {"name": "theirs"}}]}),
        "Secret theirs is neither named by the fields of this deployment nor by the annotation",
    ),
    "another's Secret in env": (sidecar(env=secret_key()), "container extra: Secret theirs is"),
    "another's Secret in an init container": (
        {"initContainers": [{"name": "first", "image": "a", "env": secret_key()}]},
        "container first: Secret theirs is",
    ),
    "all of another's Secret": (
        sidecar(envFrom=[{"secretRef": {"name": "theirs"}}]),
        "container extra: Secret theirs is",
    ),
    "another's registry": (
        {"imagePullSecrets": [{"name": "theirs"}]},
        "imagePullSecrets: Secret th",
    ),
    "the deployment's authority": (volume(secret={"secretName": "chat-ca"}), "Secret chat-ca is"),
    "another's ConfigMap": (volume(configMap={"name": "theirs"}), "ConfigMap theirs is not named"),
    "another's ConfigMap, projected": (
        volume(projected={"sources": [{"configMap": {"name": "theirs"}}]}),
        "ConfigMap theirs is not named",
    ),
    "another's ConfigMap in env": (
        sidecar(
            env=[{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "theirs", "key": "a"}}}]
        ),
        "ConfigMap theirs is not named",
    ),
    "all of another's ConfigMap": (
        sidecar(envFrom=[{"configMapRef": {"name": "theirs"}}]),
        "ConfigMap theirs is not named",
    ),
    "a source of a later version": (
        sidecar(env=[{"name": "A", "valueFrom": {"vaultKeyRef": {"name": "theirs"}}}]),
        "container extra: vaultKeyRef may not be set",
    ),
    "a driver": (
        volume(csi={"driver": "secrets-store.csi.k8s.io", "nodePublishSecretRef": {"name": "a"}}),
        "volume extra: csi may not be set",
    ),
    "a file server": (
        volume(nfs={"server": "nas", "path": "/"}),
        "volume extra: nfs may not be set",
    ),
    "another's claim": (
        volume(persistentVolumeClaim={"claimName": "theirs"}),
        "PersistentVolumeClaim theirs is neither named by the fields of this deployment",
    ),
    "a copy of another's claim": (
        volume(
            ephemeral={
                "volumeClaimTemplate": {
                    "spec": {"dataSource": {"kind": "PersistentVolumeClaim", "name": "theirs"}}
                }
            }
        ),
        "volume extra: dataSource may not be set",
    ),
    "privileges": (
        sidecar(securityContext={"privileged": True}),
        "container extra: securityContext.privileged may only be false",
    ),
    "a capability": (
        sidecar(securityContext={"capabilities": {"add": ["SYS_ADMIN"], "drop": ["ALL"]}}),
        "container extra: securityContext.capabilities may only be {drop: [ALL]}",
    ),
    "default capabilities": (
        sidecar(securityContext={"capabilities": {"drop": []}}),
        "securityContext.capabilities may only be {drop: [ALL]}",
    ),
    "capabilities by null": (
        sidecar(securityContext={"capabilities": None}),
        "securityContext.capabilities may only be {drop: [ALL]}",
    ),
    "an escalation": (
        sidecar(securityContext={"allowPrivilegeEscalation": True}),
        "securityContext.allowPrivilegeEscalation may only be false",
    ),
    "root": ({"securityContext": {"runAsUser": 0}}, "securityContext.runAsUser may only be other"),
    "perhaps root": (
        {"securityContext": {"runAsNonRoot": False}},
        "securityContext.runAsNonRoot may only be true",
    ),
    "perhaps root by null": (
        {"securityContext": {"runAsNonRoot": None}},
        "securityContext.runAsNonRoot may only be true",
    ),
    "no security context": ({"securityContext": None}, "securityContext may not be null"),
    "no security context of a container": (
        sidecar(securityContext=None),
        "container extra: securityContext may not be null",
    ),
    "any system call": (
        {"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
        "securityContext.seccompProfile may only be RuntimeDefault or Localhost",
    ),
    "any system call by null": (
        {"securityContext": {"seccompProfile": None}},
        "securityContext.seccompProfile may only be RuntimeDefault or Localhost",
    ),
    "no AppArmor": (
        sidecar(securityContext={"appArmorProfile": {"type": "Unconfined"}}),
        "securityContext.appArmorProfile may only be RuntimeDefault or Localhost",
    ),
    "another's SELinux label": (
        {"securityContext": {"seLinuxOptions": {"level": "s0:c1,c2"}}},
        "securityContext.seLinuxOptions may not be set",
    ),
    "the kernel's settings": (
        {"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}},
        "securityContext.sysctls may not be set",
    ),
    "a host process of Windows": (
        sidecar(securityContext={"windowsOptions": {"hostProcess": True}}),
        "securityContext.windowsOptions may not be set",
    ),
    "all of /proc": (
        sidecar(securityContext={"procMount": "Unmasked"}),
        "securityContext.procMount may not be set",
    ),
    "a request by the kubelet": (
        sidecar(livenessProbe=_PROBE),
        "livenessProbe host may not be set",
    ),
    "a request of a hook": (sidecar(lifecycle={"preStop": _PROBE}), "preStop host may not be set"),
    "the system's priority": (
        {"priorityClassName": "system-node-critical"},
        "priorityClassName may not be a system- class",
    ),
    "a number for a priority": ({"priority": 2000001000}, "priority may not be set"),
    "nodes without others' pods": (
        _nearby(namespaceSelector={}),
        "affinity.podAntiAffinity may not keep away pods of other namespaces",
    ),
    "another's device": (
        {"resourceClaims": [{"name": "gpu", "resourceClaimName": "theirs"}]},
        "resourceClaims may only have a resourceClaimTemplateName",
    ),
    "a debugging container": ({"ephemeralContainers": []}, "ephemeralContainers may not be set"),
    "a field of a later version": ({"hostEverything": True}, "hostEverything may not be set"),
    "a container's field of a later version": (
        sidecar(hostEverything=True),
        "container extra: hostEverything may not be set",
    ),
}
ORDINARY = {
    "scheduling": {
        "nodeSelector": {"zone": "a"},
        "tolerations": [{"operator": "Exists"}],
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
        "priorityClassName": "serving",
        "runtimeClassName": "nvidia",
        "schedulerName": "volcano",
        "terminationGracePeriodSeconds": 90,
        **_nearby(),
    },
    "a sidecar": sidecar(env=[{"name": "A", "value": "b"}], ports=[{"containerPort": 80}]),
    "a sidecar of Pod Security restricted": sidecar(
        securityContext={
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
    ),
    "an init container": {
        "initContainers": [{"name": "first", "image": "a", "restartPolicy": "Always"}]
    },
    "the pod's own fields": sidecar(
        env=[{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    ),
    "volumes": {
        "volumes": [
            {"name": "a", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
            {"name": "b", "downwardAPI": {"items": []}},
            {"name": "c", "image": {"reference": "registry/model:1"}},
            {"name": "d", "projected": {"sources": [{"downwardAPI": {"items": []}}]}},
            {"name": "e", "ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": []}}}},
        ]
    },
    "its own Secret": {
        **sidecar(env=secret_key("tokens")),
        **volume(secret={"secretName": "tokens"}),
    },
    "its own claim": volume(persistentVolumeClaim={"claimName": "models"}),
    "offered names": {
        **sidecar(
            env=[{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "trust", "key": "a"}}}],
            envFrom=[{"secretRef": {"name": "hub"}}, {"configMapRef": {"name": "trust"}}],
        ),
        **volume(
            projected={"sources": [{"secret": {"name": "hub"}}, {"configMap": {"name": "trust"}}]}
        ),
        "imagePullSecrets": [{"name": "registry"}],
    },
    "an offered claim": volume(persistentVolumeClaim={"claimName": "datasets"}),
    "fewer privileges": {
        "hostUsers": False,
        "hostNetwork": False,
        "automountServiceAccountToken": False,
        "securityContext": {"fsGroup": 2000, "runAsUser": 2000, "supplementalGroups": [1]},
    },
    "less of Aurora's": {
        "containers": [{"name": "inference", "livenessProbe": None}],
        "volumes": [{"name": "tmp", "$patch": "delete"}],
    },
    "a probe and a hook": sidecar(
        livenessProbe={"httpGet": {"path": "/", "port": 80}},
        lifecycle={"preStop": {"exec": {"command": ["true"]}}},
    ),
    "a device of its own": {
        "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "gpus"}]
    },
}
OFFERED = {
    "aurora.dev/allowed-secrets": "hub, registry",
    "aurora.dev/allowed-config-maps": "trust",
    "aurora.dev/allowed-claims": "datasets",
}


def document(template=None, *, component="inference", **spec):
    """A deployment whose `tokens` and `models` are its own, with a podTemplate's PodSpec."""
    made = copy.deepcopy(MINIMAL)
    made["spec"] |= {"security": {"authSecretRef": {"name": "tokens"}}, **spec}
    if template is not None:
        made["spec"].setdefault(component, {})["podTemplate"] = template
    return made


@pytest.fixture(scope="module")
def tenant_namespace(api_server, call_helm, tmp_path_factory):
    """A namespace with the chart's policy, and with names that it offers."""
    namespace = api_server.create_namespace()
    offer(api_server, namespace, OFFERED)
    result = call_helm(
        [
            *("template", "aurora", "--namespace", namespace),
            *("--show-only", "templates/tenancy.yaml"),
        ],
        {},
        tmp_path_factory.mktemp("values"),
    )
    assert result.returncode == 0, result.stderr
    made = list(yaml.safe_load_all(result.stdout))
    for body in made:
        place = f"{PATHS[body['kind']]}/{body['metadata']['name']}"
        api_server.request("PATCH", f"{place}?fieldManager=test&force=true", body)
    wait_until(
        lambda: refusal(api_server, namespace, document({"spec": {"hostPID": True}})),
        why=lambda: "the policy is in force",
    )
    yield namespace
    for body in made:
        api_server.request("DELETE", f"{PATHS[body['kind']]}/{body['metadata']['name']}")


def offer(server, namespace, annotations):
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"annotations": annotations}}
    server.request("PATCH", f"/api/v1/namespaces/{namespace}?fieldManager=offer&force=true", body)


def refusal(server, namespace, body, *, client=None):
    """Why a deployment is not admitted; empty if it is."""
    path = f"{OBJECTS.format(namespace)}?dryRun=All"
    try:
        request(client or server.client, "POST", path, body)
        return ""
    except ApiException as error:
        refused = error
    # An error of the policy's own would be a 422.
    assert refused.status == 403, refused.body
    return json.loads(refused.body)["message"]


@pytest.mark.parametrize(
    ("component", "attack"),
    list(zip(itertools.cycle(COMPONENTS), ATTACKS)),
    ids=ATTACKS.keys(),
)
def test_a_template_that_reaches_further_is_refused(
    api_server, tenant_namespace, component, attack
):
    template, says = ATTACKS[attack]

    found = refusal(api_server, tenant_namespace, document({"spec": template}, component=component))

    assert f"spec.{component}.podTemplate.spec" in found
    assert says in found


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("template", ORDINARY.values(), ids=ORDINARY.keys())
def test_an_ordinary_template_is_admitted(api_server, tenant_namespace, component, template):
    body = document({"spec": template}, component=component)

    assert refusal(api_server, tenant_namespace, body) == ""


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"labels": {"app": "payments"}}, "metadata.labels.app may not be set"),
        (
            {"annotations": {"container.apparmor.security.beta.kubernetes.io/a": "unconfined"}},
            "metadata.annotations.container.apparmor.security.beta.kubernetes.io/a may not be set",
        ),
        (
            {"annotations": {"k8s.v1.cni.cncf.io/networks": "host"}},
            "metadata.annotations.k8s.v1.cni.cncf.io/networks may not be set",
        ),
    ],
)
def test_metadata_by_which_others_select_or_confine_is_refused(
    api_server, tenant_namespace, metadata, says
):
    assert says in refusal(api_server, tenant_namespace, document({"metadata": metadata}))


def test_other_metadata_is_admitted(api_server, tenant_namespace):
    metadata = {"labels": {"team": "a"}, "annotations": {"prometheus.io/scrape": "true"}}

    assert refusal(api_server, tenant_namespace, document({"metadata": metadata})) == ""


def test_all_problems_are_named_at_once(api_server, tenant_namespace):
    body = document({"spec": {"hostPID": True, **sidecar(env=secret_key())}})
    body["spec"]["trainer"] = {"podTemplate": {"spec": volume(hostPath={"path": "/"})}}

    found = refusal(api_server, tenant_namespace, body)

    assert "spec.inference.podTemplate.spec.hostPID may only be false" in found
    assert "container extra: Secret theirs" in found
    assert "spec.trainer.podTemplate.spec: volume extra: hostPath may not be set" in found


def test_a_large_template_is_within_the_cost_limit(api_server, tenant_namespace):
    env = [{"name": f"A{number}", "value": "b" * 100} for number in range(200)]
    containers = [{"name": f"extra-{number}", "image": "a", "env": env} for number in range(10)]
    body = document({"spec": {"containers": containers}})
    body["spec"]["trainer"] = {"podTemplate": {"spec": {"containers": containers}}}

    assert refusal(api_server, tenant_namespace, body) == ""


@pytest.fixture
def tenant(api_server, tenant_namespace):
    """The client of a user who may write AuroraDeployments and nothing else."""
    yield from _user(api_server, tenant_namespace, "tenant", [])


@pytest.fixture
def keeper(api_server, tenant_namespace):
    """The client of one who may also read the Secret `tokens` and change the claim `models`."""
    rules = [
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": ["tokens"],
            "verbs": ["get"],
        },
        {
            "apiGroups": [""],
            "resources": ["persistentvolumeclaims"],
            "resourceNames": ["models"],
            "verbs": ["update"],
        },
    ]
    yield from _user(api_server, tenant_namespace, "keeper", rules)


def _user(server, namespace, name, rules):
    own = {"apiGroups": ["aurora.dev"], "resources": ["auroradeployments"], "verbs": ["*"]}
    group = "rbac.authorization.k8s.io"
    root = f"/apis/{group}/v1/namespaces/{namespace}"
    role = {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": {"name": name}}
    binding = {
        **role,
        "kind": "RoleBinding",
        "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
        "subjects": [{"apiGroup": group, "kind": "User", "name": name}],
    }
    for plural, body in (("roles", {**role, "rules": [own, *rules]}), ("rolebindings", binding)):
        server.request("PATCH", f"{root}/{plural}/{name}?fieldManager=test&force=true", body)
    client = client_of(server.kubeconfig_of(name))
    wait_until(lambda: _may_list(client, namespace), why=lambda: f"{name} has its role")
    yield client
    client.close()


def _may_list(client, namespace):
    try:
        return request(client, "GET", OBJECTS.format(namespace))
    except ApiException as error:
        if error.status != 403:
            raise
        return None


FIELDS = [
    (
        {"security": {"authSecretRef": {"name": "theirs"}}},
        "spec.security.authSecretRef.name: tenant may not get secrets/theirs, and the annotation "
        "aurora.dev/allowed-secrets of the namespace does not name it",
    ),
    (
        {"buffer": {"external": {"urlSecretRef": {"name": "theirs", "key": "url"}}}},
        "spec.buffer.external.urlSecretRef.name: tenant may not get secrets/theirs",
    ),
    (
        {
            "buffer": {
                "external": {"url": "rediss://r", "caSecretRef": {"name": "theirs", "key": "ca"}}
            }
        },
        "spec.buffer.external.caSecretRef.name: tenant may not get secrets/theirs",
    ),
    (
        {
            "engine": {
                "type": "vllm",
                "attach": {
                    "selector": {"app": "vllm"},
                    "keySecretRef": {"name": "theirs", "key": "key"},
                },
            },
            "draft": {"initialCheckpoint": {"uri": "pvc://datasets/draft"}},
        },
        "spec.engine.attach.keySecretRef.name: tenant may not get secrets/theirs",
    ),
    (
        {"modelStore": {"pvc": {"claimName": "theirs"}}},
        "spec.modelStore.pvc.claimName: tenant may not update persistentvolumeclaims/theirs",
    ),
    (
        {"target": {"uri": "pvc://theirs/folder"}},
        "spec.target.uri: tenant may not update persistentvolumeclaims/theirs",
    ),
    (
        {"draft": {"initialCheckpoint": {"uri": "pvc://theirs"}}},
        "spec.draft.initialCheckpoint.uri: tenant may not update persistentvolumeclaims/theirs",
    ),
]
_OFFERED_ALONE = {
    "modelStore": {"pvc": {"claimName": "datasets"}},
    "security": {"authSecretRef": {"name": "hub"}},
}


@pytest.mark.parametrize(("spec", "says"), FIELDS, ids=[next(iter(each)) for each, _ in FIELDS])
def test_a_user_may_name_only_what_they_may_use(api_server, tenant_namespace, tenant, spec, says):
    body = document(**{**_OFFERED_ALONE, **spec})

    assert says in refusal(api_server, tenant_namespace, body, client=tenant)


def test_a_user_may_name_what_the_namespace_offers(api_server, tenant_namespace, tenant):
    body = document(**_OFFERED_ALONE)

    assert refusal(api_server, tenant_namespace, body, client=tenant) == ""


def test_a_user_may_name_what_they_may_use(api_server, tenant_namespace, keeper):
    assert refusal(api_server, tenant_namespace, document(), client=keeper) == ""


def test_what_is_stored_may_be_changed_by_another_user(api_server, tenant_namespace, tenant):
    objects = OBJECTS.format(tenant_namespace)
    stored = api_server.request("POST", objects, document())
    try:
        stored["spec"]["replicas"] = 2
        stored = request(tenant, "PUT", f"{objects}/chat", stored)
        assert stored["spec"]["replicas"] == 2

        stored["spec"]["security"]["authSecretRef"]["name"] = "theirs"
        with pytest.raises(ApiException) as refused:
            request(tenant, "PUT", f"{objects}/chat", stored)
        assert refused.value.status == 403
    finally:
        api_server.request("DELETE", f"{objects}/chat")


def test_what_is_stored_may_be_annotated_although_it_is_no_longer_offered(
    api_server, tenant_namespace
):
    objects = OBJECTS.format(tenant_namespace)
    body = document({"spec": volume(secret={"secretName": "hub"})})
    stored = api_server.request("POST", objects, body)
    try:
        offer(api_server, tenant_namespace, {})
        wait_until(
            lambda: refusal(api_server, tenant_namespace, {**body, "metadata": {"name": "two"}}),
            why=lambda: "the namespace offers nothing any more",
        )
        stored["metadata"]["annotations"] = {"aurora.dev/command": "abort/chat-1"}
        stored = api_server.request("PUT", f"{objects}/chat", stored)
        scale = api_server.request("GET", f"{objects}/chat/scale")
        scale["spec"]["replicas"] = 3
        api_server.request("PUT", f"{objects}/chat/scale", scale)

        stored = api_server.request("GET", f"{objects}/chat")
        stored["spec"]["replicas"] = 4
        with pytest.raises(ApiException) as refused:
            api_server.request("PUT", f"{objects}/chat", stored)
        assert "Secret hub is neither named" in refused.value.body
    finally:
        api_server.request("DELETE", f"{objects}/chat")
        offer(api_server, tenant_namespace, OFFERED)


def test_unrestricted_is_a_choice(objects):
    kinds = [body["kind"] for body in objects({"tenancy": {"podTemplate": "Unrestricted"}})]
    tenancy = [
        body
        for body in objects({"tenancy": {"podTemplate": "Unrestricted", "limitOperator": False}})
        if body["kind"].startswith("ValidatingAdmission")
    ]

    assert kinds.count("ValidatingAdmissionPolicy") == 1
    assert tenancy == []
