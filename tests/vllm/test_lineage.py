"""Drafts are relatives if parent links connect them, in whatever order they are seen."""

from __future__ import annotations

from aurora_vllm.lineage import Lineage


def test_parents_connect_drafts():
    lineage = Lineage()
    lineage.add("start", "")
    lineage.add("grandchild", "child")

    assert not lineage.related("start", "grandchild")
    lineage.add("child", "start")
    assert lineage.related("start", "grandchild")
    assert lineage.related("grandchild", "child")


def test_drafts_without_a_known_parent_are_strangers():
    lineage = Lineage()
    lineage.add("one", "")
    lineage.add("other", "")

    assert lineage.related("one", "one")
    assert not lineage.related("one", "other")
    assert not lineage.related("unseen", "one")
