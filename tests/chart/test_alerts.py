"""Every alert fires when it should, not before, and has a runbook; promtool evaluates them."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

RUNBOOKS = Path(__file__).parents[2] / "docs/runbooks.md"
OF = 'deployment_namespace="serving",deployment="chat"'
HERE = 'namespace="serving",deployment="chat"'
_BY_OPERATOR = {"deployment_namespace": "serving", "deployment": "chat"}
_BY_MONITOR = {"namespace": "serving", "deployment": "chat"}


def _problem(condition, reason):
    return f'aurora_operator_deployment_problem{{{OF},condition="{condition}",reason="{reason}"}}'


def _rollout(state):
    return f'aurora_operator_deployment_rollout{{{OF},rollout="chat-7",state="{state}"}}'


def _unguarded(count):
    labels = 'condition="ClientsGuarded",status="False",reason="Unguarded"'
    return {f"aurora_operator_conditions{{{labels}}}": f"{count}x90"}


# For each alert: series that make it fire and when it does, its labels and its summary, and series
# that come near.
CASES = {
    "AuroraDeploymentNotReady": (
        {_problem("Ready", "InferenceNotReady"): "1x20"},
        "10m",
        {"severity": "critical", "reason": "InferenceNotReady", **_BY_OPERATOR},
        "serving/chat does not serve with all its pods",
        {_problem("Ready", "ScaledToZero"): "1x20", _problem("Ready", "Suspended"): "1x20"},
    ),
    "AuroraDeploymentDegraded": (
        {_problem("Degraded", "ApplyRefused"): "1x20"},
        "5m",
        {"severity": "warning", "reason": "ApplyRefused", **_BY_OPERATOR},
        "serving/chat is degraded: ApplyRefused",
        {_problem("Degraded", "CertificateNotIssued"): "1x20"},
    ),
    "AuroraCertificateNotIssued": (
        {_problem("Degraded", "CertificateNotIssued"): "1x20"},
        "15m",
        {"severity": "critical", **_BY_OPERATOR},
        "serving/chat gets no certificates",
        {_problem("Degraded", "ApplyRefused"): "1x20"},
    ),
    "AuroraClientsUnguarded": (
        _unguarded(2),
        "1h",
        {"severity": "info"},
        "2 deployments answer whoever reaches them",
        _unguarded(0),
    ),
    "AuroraRequestsFailing": (
        {
            f'aurora_failed_requests_total{{{HERE},arm="stable"}}': "0+6x30",
            f'aurora_requests_total{{{HERE},arm="stable"}}': "0+100x30",
        },
        "10m",
        {"severity": "critical", **_BY_MONITOR},
        "serving/chat fails more than 5% of its requests",
        {
            f'aurora_failed_requests_total{{{HERE},arm="stable"}}': "0+4x30",
            f'aurora_requests_total{{{HERE},arm="stable"}}': "0+100x30",
        },
    ),
    "AuroraRecordingStopped": (
        {
            f'aurora_trajectories_dropped_total{{{HERE},pod="a"}}': "0+5x30",
            f'aurora_trajectories_sent_total{{{HERE},pod="a"}}': "900x30",
        },
        "15m",
        {"severity": "warning", **_BY_MONITOR},
        "serving/chat records none of its requests",
        {
            f'aurora_trajectories_dropped_total{{{HERE},pod="a"}}': "0+5x30",
            f'aurora_trajectories_sent_total{{{HERE},pod="b"}}': "0+1x30",
        },
    ),
    "AuroraTrainerLagging": (
        {f"aurora_buffer_trimmed_unacknowledged_total{{{HERE}}}": "0x9 1x20"},
        "10m",
        {"severity": "warning", **_BY_MONITOR},
        "serving/chat drops requests before it learns from them",
        {f"aurora_buffer_trimmed_unacknowledged_total{{{HERE}}}": "7x30"},
    ),
    "AuroraTrainerFailing": (
        {
            f"aurora_trainer_skipped_steps_total{{{HERE}}}": "0+1x30",
            f"aurora_trainer_optimizer_steps_total{{{HERE}}}": "50x30",
        },
        "5m",
        {"severity": "warning", **_BY_MONITOR},
        "serving/chat does not get on with training",
        {
            f"aurora_trainer_skipped_steps_total{{{HERE}}}": "0+1x30",
            f"aurora_trainer_optimizer_steps_total{{{HERE}}}": "0+9x30",
            f'aurora_trainer_task_restarts_total{{{HERE},task="a"}}': "0x5 1x25",
        },
    ),
    "AuroraRolloutStuck": (
        {_rollout("Pending"): "1x60"},
        "30m",
        {"severity": "warning", "rollout": "chat-7", "state": "Pending", **_BY_OPERATOR},
        "rollout chat-7 in serving stays Pending",
        {_rollout("Analyzing"): "1x60", _rollout("Promoting"): "1x10"},
    ),
    "AuroraRolloutRolledBack": (
        {'aurora_operator_rollouts_total{outcome="RolledBack"}': "0x9 1x60"},
        "11m",
        {"severity": "info"},
        "a draft was rolled back within the last hour",
        {'aurora_operator_rollouts_total{outcome="Promoted"}': "0+1x60"},
    ),
    "AuroraLeaderMissing": (
        {'aurora_operator_leader{pod="a"}': "0x20", 'aurora_operator_leader{pod="b"}': "0x20"},
        "3m",
        {"severity": "critical"},
        "no operator acts: deployments serve on, but nothing changes",
        {'aurora_operator_leader{pod="a"}': "0x40", 'aurora_operator_leader{pod="b"}': "1x40"},
    ),
    "AuroraOperatorFailing": (
        {
            'aurora_operator_reconcile_seconds_count{worker="objects",result="error"}': "0+6x60",
            'aurora_operator_reconcile_seconds_count{worker="objects",result="done"}': "0+4x60",
        },
        "30m",
        {"severity": "warning", "worker": "objects"},
        "most reconciles of the operator's worker objects fail",
        {
            'aurora_operator_reconcile_seconds_count{worker="objects",result="error"}': "0+4x60",
            'aurora_operator_reconcile_seconds_count{worker="objects",result="done"}': "0+6x60",
        },
    ),
}


@pytest.fixture(scope="module")
def rules(call_helm, tmp_path_factory):
    """The rules as the chart makes them."""
    command = [
        *("template", "aurora", "--show-only=templates/alerts.yaml"),
        "--api-versions=monitoring.coreos.com/v1/PrometheusRule",
    ]
    result = call_helm(command, {}, tmp_path_factory.mktemp("values"))
    assert result.returncode == 0, result.stderr
    return yaml.safe_load(result.stdout)["spec"]


@pytest.fixture
def evaluate(promtool, rules, tmp_path):
    """Has promtool evaluate the rules over series and compare the alerts at a time."""
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))

    def evaluate(series, at, alert, expected):
        found = [
            {"exp_labels": labels, "exp_annotations": annotations}
            for labels, annotations in expected
        ]
        test = {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "alert_rule_test": [{"eval_time": at, "alertname": alert, "exp_alerts": found}],
        }
        path = tmp_path / "test.yaml"
        path.write_text(json.dumps({"rule_files": ["rules.yaml"], "tests": [test]}))
        result = subprocess.run(
            [promtool, "test", "rules", path], capture_output=True, text=True, timeout=60
        )
        assert result.returncode == 0, result.stdout + result.stderr

    return evaluate


def _alerts(rules):
    return {rule["alert"]: rule for group in rules["groups"] for rule in group["rules"]}


def test_every_alert_has_a_case_and_a_runbook(rules):
    alerts = _alerts(rules)
    sections = re.findall(r"^## (Aurora\w+)$", RUNBOOKS.read_text(), re.MULTILINE)

    assert list(alerts) == sections
    assert alerts.keys() == CASES.keys()
    for name, rule in alerts.items():
        assert rule["annotations"]["runbook"] == f"docs/runbooks.md#{name.lower()}"


def test_the_runbooks_are_short():
    assert len(RUNBOOKS.read_text().splitlines()) <= 150


@pytest.mark.parametrize("alert", CASES)
def test_it_fires(evaluate, alert):
    series, at, labels, summary, _ = CASES[alert]
    annotations = {"summary": summary, "runbook": f"docs/runbooks.md#{alert.lower()}"}

    evaluate(series, at, alert, [({"alertname": alert, **labels}, annotations)])


@pytest.mark.parametrize("alert", CASES)
def test_it_does_not_fire_at_once_or_for_something_else(evaluate, alert):
    series, _, _, _, near = CASES[alert]

    evaluate(series, "0m", alert, [])
    for at in ("1m", "29m"):
        evaluate(near, at, alert, [])


def test_every_metric_is_exported(rules, exported):
    asked = {
        metric
        for rule in _alerts(rules).values()
        for metric in re.findall(r"\baurora_[a-z0-9_]+", rule["expr"])
    }

    assert asked - exported.keys() == set()
