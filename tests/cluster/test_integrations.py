"""The examples for Gateway API and KEDA name what a deployment has."""

from pathlib import Path

import yaml
from support.desired import deployment, objects

from aurora_operator.domain.crd import GROUP, KIND, VERSION
from aurora_operator.domain.objects.inference import WAITING_METRIC

EXAMPLES = Path(__file__).parents[2] / "examples/integrations"


def example(name):
    return yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())


def test_a_route_leads_to_the_endpoint():
    route = example("httproute")
    (rule,) = route["spec"]["rules"]
    (backend,) = rule["backendRefs"]
    service = objects(deployment())["Service", backend["name"]]
    assert route["metadata"]["namespace"] == service["metadata"]["namespace"]
    http = next(port for port in service["spec"]["ports"] if port["name"] == "http")
    assert (backend["port"], http["appProtocol"]) == (http["port"], "http")


def test_keda_scales_the_deployment_by_its_queue(api_server, api_namespace):
    scaled = example("keda")["spec"]
    target = scaled["scaleTargetRef"]
    assert (target["apiVersion"], target["kind"]) == (f"{GROUP}/{VERSION}", KIND)
    assert f"sum({WAITING_METRIC}{{" in scaled["triggers"][0]["metadata"]["query"]

    # What KEDA's HorizontalPodAutoscaler writes.
    made = deployment(target["name"])
    path = f"/apis/{GROUP}/{VERSION}/namespaces/{api_namespace}/auroradeployments"
    body = {
        "apiVersion": made.api_version,
        "kind": made.kind,
        "metadata": {"name": target["name"]},
        "spec": {
            "target": {"uri": "pvc://models/target"},
            "buffer": {"embedded": {}},
            "modelStore": {"pvc": {"claimName": "models"}},
        },
    }
    api_server.request("POST", path, body)
    scale = api_server.request("GET", f"{path}/{target['name']}/scale")
    scale["spec"]["replicas"] = scaled["maxReplicaCount"]
    api_server.request("PUT", f"{path}/{target['name']}/scale", scale)
    stored = api_server.request("GET", f"{path}/{target['name']}")
    assert stored["spec"]["replicas"] == scaled["maxReplicaCount"]
