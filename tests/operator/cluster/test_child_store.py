from aurora_operator.cluster.child_store import ChildStore, News
from aurora_operator.cluster.kinds import Key, Reference, is_owned_by, owner

KEY = Key("serving", "chat")
PLACE = Reference("Service", "chat-buffer")


def _service(version: int, *, uid: str = "u1", port: int = 80) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "namespace": "serving",
            "name": "chat-buffer",
            "uid": uid,
            "resourceVersion": str(version),
            "labels": {"app.kubernetes.io/instance": "chat"},
            "managedFields": [{"manager": "aurora-operator"}],
        },
        "spec": {"ports": [{"port": port}]},
        "status": {"loadBalancer": {}},
    }


def test_keeps_the_newest_body_without_unread_fields():
    store = ChildStore()
    assert store.remember(KEY, _service(5)) is News.ESSENCE
    kept = store.get(KEY, PLACE)
    assert kept is not None
    assert kept["spec"] == {"ports": [{"port": 80}]}
    assert "status" not in kept
    assert "managedFields" not in kept["metadata"]


def test_an_outdated_event_changes_nothing():
    store = ChildStore()
    store.remember(KEY, _service(9, port=90))
    assert store.remember(KEY, _service(5)) is News.NONE
    assert store.remember(KEY, _service(9)) is News.NONE
    kept = store.get(KEY, PLACE)
    assert kept is not None
    assert kept["spec"]["ports"] == [{"port": 90}]


def test_distinguishes_a_change_of_status_from_one_of_essence():
    store = ChildStore()
    store.remember(KEY, _service(1))
    assert store.remember(KEY, _service(2) | {"status": {"loadBalancer": {"x": 1}}}) is News.STATUS
    assert store.remember(KEY, _service(3, port=81)) is News.ESSENCE


def test_forgets_only_the_deleted_object():
    store = ChildStore()
    store.remember(KEY, _service(9, uid="second"))
    assert not store.forget(KEY, PLACE, "first")
    assert store.places(KEY) == {PLACE}
    assert store.forget(KEY, PLACE, "second")
    assert store.places(KEY) == frozenset()
    assert len(store) == 0


def test_a_pod_is_kept_with_its_status_but_not_its_whole_spec():
    pod = _service(3) | {
        "kind": "Pod",
        "spec": {
            "nodeName": "node",
            "tolerations": [{}],
            "containers": [{"name": "buffer", "image": "b", "env": [{"name": "x"}]}],
        },
        "status": {"podIP": "127.0.0.2"},
    }
    store = ChildStore()
    store.remember(KEY, pod)
    [kept] = store.of_kind(KEY, "Pod")
    assert kept["status"] == {"podIP": "127.0.0.2"}
    assert kept["spec"] == {"nodeName": "node", "containers": [{"name": "buffer", "image": "b"}]}


def test_labels_name_the_owner_and_references_prove_it():
    body = _service(1)
    assert owner(body) == KEY
    assert not is_owned_by(body, "parent")
    body["metadata"]["ownerReferences"] = [{"uid": "parent", "controller": True}]
    assert is_owned_by(body, "parent")
    assert not is_owned_by(body, "another")
