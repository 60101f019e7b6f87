"""The demo's text: fixed by its seed, found with the running Python."""

from __future__ import annotations

import json
import random
import sysconfig
from itertools import islice
from pathlib import Path

import pytest

from aurora_common.errors import NotFoundError
from aurora_demo.corpus import (
    TRAFFIC_MODULES,
    TRAINING_MODULES,
    generated_documents,
    read_modules,
)
from aurora_demo.generated_text import log_document

LIBRARY = Path(sysconfig.get_path("stdlib"))


def test_every_module_is_there_and_traffic_begins_with_none_that_was_trained_on():
    names = TRAINING_MODULES + TRAFFIC_MODULES
    assert len(read_modules(LIBRARY, names)) == len(names)
    assert not set(TRAINING_MODULES) & set(TRAFFIC_MODULES)


def test_a_module_that_a_newer_python_lacks_is_skipped():
    assert read_modules(LIBRARY, ("os", "heapq", "gone")) == read_modules(LIBRARY, ("os", "heapq"))


def test_a_python_without_sources_is_reported(tmp_path):
    with pytest.raises(NotFoundError, match=r"has only 0 of 2 modules"):
        read_modules(tmp_path, ("os", "heapq"))


@pytest.mark.parametrize("domain", ["logs", "sql"])
def test_the_seed_decides_the_documents(domain):
    first, again, other = (
        list(islice(generated_documents(domain, seed=seed), 5)) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
    assert len(set(first)) == 5


def test_a_log_is_json_lines_whose_clock_wraps_at_midnight():
    class LastSecond(random.Random):
        def randrange(self, start, stop=None, step=1):
            return (start if stop is None else stop) - 1

    lines = [json.loads(line) for line in log_document(LastSecond(1), lines=3).splitlines()]
    assert [line["time"] for line in lines] == ["23:59:59", "00:00:00", "00:00:01"]


def test_a_session_gives_as_many_rows_as_it_says():
    for document in islice(generated_documents("sql", seed=3), 20):
        for statement in document.split("db=> ")[1:]:
            lines = statement.splitlines()
            if lines[0].startswith("SELECT"):
                assert lines[-1] == f"({len(lines) - 3} rows)"
