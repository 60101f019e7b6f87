"""docs/operator.md names exactly the operator's reasons, states and metrics."""

import re
from pathlib import Path
from typing import get_args

import pytest

from aurora_operator.cluster.metrics import Metrics
from aurora_operator.domain.certificate import COMPONENTS, admitted_names, dns_name
from aurora_operator.domain.certificate import OPERATOR as OPERATOR_PEER
from aurora_operator.domain.manifest.spec import Metadata
from aurora_operator.domain.rollout.guardrail import GUARDRAILS
from aurora_operator.domain.rollout.state import Ended, State

ROOT = Path(__file__).parents[2]
OPERATOR = ROOT / "operator/aurora_operator"


@pytest.fixture(scope="module")
def text():
    return (ROOT / "docs/operator.md").read_text()


def _section(text, title):
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def _sources(*folders):
    return "".join(path.read_text() for each in folders for path in (OPERATOR / each).rglob("*.py"))


def test_it_is_short(text):
    assert len(text.splitlines()) <= 150


def test_the_reasons_of_conditions_match_the_code(text):
    found = set(re.findall(r'_Finding\(\s*(?:True|False), "(\w+)"', _sources("domain")))
    found |= set(re.findall(r'Problem\(\s*"(\w+)"', _sources("domain", "cluster")))
    found |= set(re.findall(r'found\.append\(\("(\w+)"', _sources("domain")))
    found |= set(re.findall(r'^ +\("([A-Z]\w+)", f"', _sources("domain"), re.MULTILINE))
    found |= {f"Rollout{state.__name__}" for state in get_args(State) if state not in _ended()}
    table = _section(text, "Conditions").split("\nReady is about")[0]

    assert set(re.findall(r"`(\w+)`", table)) == found


def test_every_problem_has_a_remedy(text):
    wrong = {"InferenceNotReady"} | set(
        re.findall(r"`(\w+)`", re.search(r"Degraded=True \|(.*)\|", text)[1])
    )
    remedies = {
        name
        for row in _section(text, "When something is wrong").splitlines()
        for name in re.findall(r"`(\w+)`", row.split("|")[1] if "|" in row else "")
    }

    assert remedies == wrong


def test_the_diagram_shows_every_state(text):
    drawing = _section(text, "The states of a rollout").split("```")[1]

    for state in get_args(State):
        assert state.__name__ in drawing


def test_the_reasons_of_verdicts_match_the_code(text):
    names = "|".join(state.__name__ for state in (*_ended(), _promoting()))
    places = ("domain/rollout/state.py", "domain/rollout/dry_run.py", "domain/plan/watch.py")
    code = "".join((OPERATOR / place).read_text() for place in places)
    found = set(re.findall(rf'(?:{names})\(f?"(\w+)', code))
    found |= {guardrail.harm for guardrail in GUARDRAILS.values()}
    section = _section(text, "The states of a rollout").split("gives the reason:")[1]

    assert set(re.findall(r"`(\w+)`", section)) == found


def _ended():
    return get_args(Ended)


def _promoting():
    return next(state for state in get_args(State) if state.__name__ == "Promoting")


def test_the_certificate_names_match_the_code(text):
    section = _section(text, "Certificates")
    for peer in ("<component>", OPERATOR_PEER):
        assert f"`{dns_name('chat', peer, namespace='<namespace>')}`" in section
    operator = dns_name("chat", OPERATOR_PEER, namespace="serving")
    metadata = Metadata(name="chat", namespace="serving")
    rows = [row.split("|")[1:3] for row in section.splitlines() if row.startswith("| ")][1:]
    found = {
        component: tuple(
            operator.replace("operator", peer)
            for peer in re.findall("inference|buffer|trainer|operator", admitted)
        )
        for components, admitted in rows
        for component in re.findall("inference|buffer|trainer", components)
    }
    assert found == {each: admitted_names(metadata, each) for each in COMPONENTS}


def test_the_metrics_are_the_operators(text):
    metrics = Metrics()
    metrics.follow_queue("objects", lambda: 0)
    metrics.follow_deployments(list)
    kinds = {family.name: family.type for family in metrics.registry.collect()}
    names = {name + "_total" * (kind == "counter") for name, kind in kinds.items()}

    assert set(re.findall(r"`(aurora_operator_\w+)`", _section(text, "Metrics"))) == names
