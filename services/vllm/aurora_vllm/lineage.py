"""Which drafts descend from one another, as far as this engine has seen or found them."""

from __future__ import annotations


class Lineage:
    """Families of digests that parent links connect.

    After a switch the attention cache still holds what the former draft computed. Relatives read it
    with hardly a loss; a stranger does not.
    """

    def __init__(self) -> None:
        self._families: dict[str, set[str]] = {}

    def add(self, digest: str, parent_digest: str) -> None:
        """Notes a draft and its parent, "" if that is not known."""
        family = {digest, parent_digest} - {""}
        for member in tuple(family):
            family |= self._families.get(member, set())
        for member in family:
            self._families[member] = family

    def related(self, one: str, other: str) -> bool:
        return other in self._families.get(one, {one})
