"""Checks of --tls and --admit."""

import pytest

from aurora_common.admission import admit_problem


@pytest.mark.parametrize(
    ("has_tls", "admit", "problem"),
    [
        (False, [], None),
        (True, ["chat-operator.serving.svc"], None),
        (True, [], "--tls without --admit"),
        (False, ["chat-operator.serving.svc"], "--admit without --tls"),
    ],
)
def test_tls_and_admit_need_each_other(has_tls, admit, problem):
    found = admit_problem(has_tls=has_tls, admit=admit)
    assert found is None if problem is None else found.startswith(problem)
