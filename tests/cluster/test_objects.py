"""A real API server admits the desired objects, and they need no second write."""

import pytest
from support.desired import SPECS, deployment, objects

from aurora_operator.cluster.kinds import CHILDREN, POD
from aurora_operator.domain.objects.drift import needs_apply


@pytest.fixture
def apply(api_server):
    """Server-side apply of an object; `dry_run` stores nothing."""

    def apply(made, *, dry_run=False):
        metadata = made["metadata"]
        path = CHILDREN[made["kind"]].path(metadata["namespace"], metadata["name"])
        query = "fieldManager=aurora-operator&force=true" + "&dryRun=All" * dry_run
        return api_server.request("PATCH", f"{path}?{query}", made)

    return apply


def pod_of(workload):
    """The pod that a workload's controller creates."""
    template = workload["template"]
    claimed = [
        {"name": claim["metadata"]["name"], "persistentVolumeClaim": {"claimName": "claimed"}}
        for claim in workload.get("volumeClaimTemplates", ())
    ]
    spec = {**template["spec"], "volumes": [*template["spec"]["volumes"], *claimed]}
    return {"metadata": {**template["metadata"], "name": "pod"}, "spec": spec}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_desired_objects_are_admitted(apply, api_server, api_namespace, spec):
    wanted = objects(deployment(namespace=api_namespace, **spec)).values()
    for made in wanted:
        apply(made, dry_run=True)
        live = apply(made)
        assert not needs_apply(made, live), (made["kind"], made["metadata"]["name"])
        assert apply(made)["metadata"]["resourceVersion"] == live["metadata"]["resourceVersion"]
    # Pod Security only warns about a workload, and refuses its pods.
    for made in wanted:
        if "template" in made.get("spec", {}):
            path = f"{POD.path(api_namespace)}?dryRun=All"
            api_server.request("POST", path, pod_of(made["spec"]))


@pytest.mark.parametrize(("before", "after"), [("minimal", "template"), ("template", "minimal")])
def test_a_change_takes_one_write(apply, api_namespace, before, after):
    lives = {
        place: apply(made)
        for place, made in objects(deployment(namespace=api_namespace, **SPECS[before])).items()
    }
    changed = []
    for place, made in objects(deployment(namespace=api_namespace, **SPECS[after])).items():
        if needs_apply(made, lives[place]):
            changed.append(place)
            lives[place] = apply(made)
        assert not needs_apply(made, lives[place])
    assert changed == [("Deployment", "chat-inference")]
