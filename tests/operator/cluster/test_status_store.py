from hypothesis import given
from hypothesis import strategies as st

from aurora_operator.cluster.status_store import merge_patch

NAMES = st.sampled_from("abc")
OBJECTS = st.recursive(
    st.dictionaries(NAMES, st.integers(0, 2) | st.lists(st.integers(0, 2), max_size=2)),
    lambda inner: st.dictionaries(NAMES, inner | st.integers(0, 2)),
    max_leaves=8,
)


def _applied(target, patch):
    """RFC 7386, section 2."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _applied(result.get(name), value)
    return result


@given(before=OBJECTS, after=OBJECTS)
def test_applying_the_patch_yields_the_other(before, after):
    patch = merge_patch(before, after)
    assert _applied(before, patch) == after
    assert (patch == {}) == (before == after)
