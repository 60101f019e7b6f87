"""Tokens that an engine tested, beside how many of them it should have accepted."""

import numpy as np
import pytest

from aurora.buffer.v1.buffer_pb2 import VerifyStep
from aurora_trainer.judge.parity import Agreement

EMPTY = Agreement("sha256:a")


def steps(*pairs):
    return [VerifyStep(drafted=drafted, accepted=accepted) for drafted, accepted in pairs]


def test_what_a_step_tests_ends_with_the_first_that_it_rejects():
    # Tokens: the prompt's; three of the first step; one; two of the last.
    alpha = np.array([0.0, 0.5, 1.0, 0.25, 0.75, 0.5, 1.0])

    found = EMPTY.add(alpha, steps((3, 2), (2, 0), (1, 1)))

    # 1, 2, 3 of the first, 4 of the second, 5 of the last, whose own token is the sixth.
    assert (found.requests, found.tested, found.accepted) == (1, 5, 3)
    assert found.predicted == 0.5 + 1.0 + 0.25 + 0.75 + 0.5
    assert found.variance == pytest.approx(0.25 + 0.1875 + 0.1875 + 0.25)


def test_each_token_is_predicted_by_its_place_in_the_proposal():
    alpha = np.array([[0.0, 0.0], [0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])

    assert EMPTY.add(alpha, steps((2, 2))).predicted == pytest.approx(0.9 + 0.2)


def test_a_step_that_goes_beyond_the_end_counts_up_to_it():
    found = EMPTY.add(np.full(3, 0.5), steps((4, 4)))

    assert (found.tested, found.accepted) == (2, 2)


@pytest.mark.parametrize(
    "passed_over",
    [
        VerifyStep(ngram_drafted=2, ngram_accepted=1),
        VerifyStep(drafted=2, accepted=1, by_other=True),
    ],
)
def test_steps_that_it_did_not_draft_for_are_passed_over(passed_over):
    found = EMPTY.add(np.array([0.0, 0.1, 0.2, 0.4, 0.8]), [passed_over, *steps((1, 1))])

    assert (found.tested, found.accepted, found.predicted) == (1, 1, 0.4)


@pytest.mark.parametrize("found", [steps(), steps((1, 0)), steps((1, 1), (1, 1), (1, 1))])
def test_steps_that_do_not_add_up_to_the_tokens_tell_nothing(found):
    assert EMPTY.add(np.full(5, 0.5), found) == EMPTY
