"""The webhook's URL comes from a Secret, and the operator may reach it."""

import pytest

WEBHOOK = {"notifications": {"urlSecret": {"name": "hook", "key": "slack.url"}}}


def found(documents, kind):
    (one,) = (each for each in documents if each and each["kind"] == kind)
    return one["spec"]


def operator(documents):
    return found(documents, "Deployment")["template"]["spec"]


def test_by_default_there_is_none(objects):
    made = objects({})
    pod = operator(made)
    assert not any("notify" in argument for argument in pod["containers"][0]["args"])
    assert [volume["name"] for volume in pod["volumes"]] == ["tmp"]
    ports = [rule["ports"] for rule in found(made, "NetworkPolicy")["egress"]]
    assert [{"port": 443, "protocol": "TCP"}] not in ports


def test_the_url_is_a_file_of_its_secret(objects):
    pod = operator(objects(WEBHOOK))
    (container,) = pod["containers"]
    assert "--notify-url-file=/etc/aurora/notifications/url" in container["args"]
    (mount,) = (each for each in container["volumeMounts"] if each["name"] == "notifications")
    # A subPath would keep the first content for ever.
    assert mount == {
        "name": "notifications",
        "mountPath": "/etc/aurora/notifications",
        "readOnly": True,
    }
    (volume,) = (each for each in pod["volumes"] if each["name"] == "notifications")
    assert volume["secret"] == {
        "secretName": "hook",
        "items": [{"key": "slack.url", "path": "url"}],
    }


@pytest.mark.parametrize(
    ("egress", "expected"),
    [
        (None, {"ports": [{"port": 443, "protocol": "TCP"}]}),
        (
            [{"to": [{"podSelector": {"matchLabels": {"app": "broker"}}}]}],
            {"to": [{"podSelector": {"matchLabels": {"app": "broker"}}}]},
        ),
    ],
)
def test_the_operator_may_reach_it(objects, egress, expected):
    given = {} if egress is None else {"egress": egress}
    made = objects({"notifications": {**WEBHOOK["notifications"], **given}})
    assert found(made, "NetworkPolicy")["egress"][-1] == expected
