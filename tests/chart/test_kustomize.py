"""kustomize rewrites the names in an AuroraDeployment, with the configuration that is shipped."""

import re
import shutil
import subprocess

import pytest
import yaml

from aurora_operator.domain.crd import definition

CHAT = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: models}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: account}
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: ours}
---
apiVersion: aurora.dev/v1alpha1
kind: AuroraDeployment
metadata: {name: chat}
spec:
  replicas: 1
  target: {uri: "pvc://models/target"}
  modelStore: {pvc: {claimName: models}}
  engine: {type: vllm, attach: {keySecretRef: {name: tokens, key: vllm}}}
  buffer:
    external:
      urlSecretRef: {name: tokens, key: url}
      caSecretRef: {name: tokens, key: ca}
    podTemplate:
      spec:
        containers:
        - {name: buffer, envFrom: [{configMapRef: {name: settings}}]}
  inference:
    image: aurora-inference:1
    podTemplate:
      spec:
        serviceAccountName: account
        imagePullSecrets: [{name: tokens}]
        volumes:
        - {name: settings, configMap: {name: settings}}
        - {name: more, persistentVolumeClaim: {claimName: models}}
        initContainers:
        - name: first
          image: aurora-inference:1
          env: [{name: A, valueFrom: {secretKeyRef: {name: tokens, key: a}}}]
  security:
    authSecretRef: {name: tokens}
    tls: {mode: CertManager, issuerRef: {name: ours}}
"""


@pytest.fixture
def built(kubectl, pytestconfig, tmp_path):
    """What `kubectl kustomize` makes of the page's example, by kind."""
    root = pytestconfig.rootpath
    page = (root / "docs/kustomize.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "kustomization.yaml").write_text(example)
    (tmp_path / "chat.yaml").write_text(CHAT)
    (tmp_path / "tokens.txt").write_text("secret")
    shutil.copy(root / "deploy/kustomize/kustomizeconfig.yaml", tmp_path)
    result = subprocess.run(
        [kubectl, "kustomize", tmp_path], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    return {body["kind"]: body for body in yaml.safe_load_all(result.stdout)}


def test_every_name_follows(built):
    tokens = built["Secret"]["metadata"]["name"]
    assert re.fullmatch(r"dev-tokens-\w+", tokens)
    spec = built["AuroraDeployment"]["spec"]
    assert built["AuroraDeployment"]["metadata"]["name"] == "dev-chat"
    assert spec["modelStore"]["pvc"]["claimName"] == "dev-models"
    assert spec["target"]["uri"] == "pvc://dev-models/target"
    assert spec["security"]["authSecretRef"]["name"] == tokens
    assert spec["security"]["tls"]["issuerRef"]["name"] == "dev-ours"
    external = spec["buffer"]["external"]
    assert external["urlSecretRef"]["name"] == external["caSecretRef"]["name"] == tokens
    assert spec["engine"]["attach"]["keySecretRef"]["name"] == tokens
    (container,) = spec["buffer"]["podTemplate"]["spec"]["containers"]
    assert container["envFrom"] == [{"configMapRef": {"name": "dev-settings"}}]
    pod = spec["inference"]["podTemplate"]["spec"]
    assert pod["serviceAccountName"] == "dev-account"
    assert pod["imagePullSecrets"] == [{"name": tokens}]
    assert pod["volumes"][0]["configMap"]["name"] == "dev-settings"
    assert pod["volumes"][1]["persistentVolumeClaim"]["claimName"] == "dev-models"
    (first,) = pod["initContainers"]
    assert first["env"][0]["valueFrom"]["secretKeyRef"]["name"] == tokens


def test_images_and_replicas_follow(built):
    spec = built["AuroraDeployment"]["spec"]
    image = "registry.example.com/aurora-inference:2"
    assert spec["replicas"] == 3
    assert spec["inference"]["image"] == image
    assert spec["inference"]["podTemplate"]["spec"]["initContainers"][0]["image"] == image


def test_it_names_fields_that_exist(pytestconfig):
    content = yaml.safe_load(
        (pytestconfig.rootpath / "deploy/kustomize/kustomizeconfig.yaml").read_text()
    )
    fields = [spec for each in content["nameReference"] for spec in each["fieldSpecs"]]
    fields += content["images"] + content["replicas"]
    root = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for field in fields:
        place = root
        for key in field["path"].split("/"):
            # The rest is a PodSpec's.
            if place.get("x-kubernetes-preserve-unknown-fields"):
                break
            place = place["properties"][key]


def test_every_reference_of_the_manifest_is_in_it(pytestconfig):
    """Each field that names another object, by its type in the schema."""
    text = (pytestconfig.rootpath / "deploy/kustomize/kustomizeconfig.yaml").read_text()
    root = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    found = set(_references(root["properties"]["spec"], "spec"))
    assert len(found) >= 5
    assert [path for path in sorted(found) if f"path: {path}}}" not in text] == []


def _references(schema, path):
    for name, field in schema.get("properties", {}).items():
        here = f"{path}/{name}"
        if name.endswith("Ref"):
            yield f"{here}/name"
        elif name == "claimName":
            yield here
        yield from _references(field, here)
