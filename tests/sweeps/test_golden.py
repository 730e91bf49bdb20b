"""Keys of what is committed stay as they are: finished runs are found by them.

golden_keys.json holds the key and the full configuration of every point of conf/routing and of the sweeps without
scales, and a hash of the keys of the others at each scale. A failure here says what changed. What to do:

- A setting was added. No key may move: give the setting a row in ABSENT (moe_study/design/identity.py) with the value
  that runs had before it was one. Then write the file anew; the new setting appears in it, and no key changes.
- A default moved, in a dataclass or in conf/, on purpose. Keys move with it, and runs finished before stay what they
  were: read with the value that they were trained with, under their old keys. Say so in docs/LOG.md and write the file
  anew. ABSENT stays untouched.
- A sweep or a routing was added, changed or removed: write the file anew; only its own lines may change.
- Nothing of this was meant: a spelling (normal.py), a condition (unused.py) or the hash changed by mistake. Mend that.

To write it anew: python -m tests.sweeps.golden
"""

import json
from typing import Any

import pytest

from tests.sweeps.golden import (
    DEFAULTS,
    FILE,
    entries,
    full,
    golden,
    plan_of_one_seed,
    scaled_entries,
    summary,
)

ADVICE = "read the head of tests/sweeps/test_golden.py, which says what to do; then python -m tests.sweeps.golden"


@pytest.fixture(scope="module")
def held() -> dict[str, Any]:
    return dict(json.loads(FILE.read_text(encoding="utf-8")))


def test_every_committed_file_is_held_and_none_else(held):
    assert set(held) == {DEFAULTS, *entries(), *scaled_entries()}, ADVICE


def test_the_defaults_are_those_that_are_held(composer, held):
    now = full(composer.run_config([]))
    before = held[DEFAULTS]
    moved = {name: (before.get(name), now.get(name)) for name in before | now if before.get(name) != now.get(name)}
    assert now == before, f"settings that moved, before and after: {moved}; {ADVICE}"


@pytest.mark.parametrize("entry", entries())
def test_keys_and_configurations_are_those_that_are_held(composer, held, entry):
    now = {point["point"]: point for point in golden(composer, entry, held[DEFAULTS])}
    before = {point["point"]: point for point in held.get(entry, [])}
    assert set(now) == set(before), f"{entry} has other points than before; {ADVICE}"
    for name, point in now.items():
        assert point["settings"] == before[name]["settings"], f"{entry}: {name} has other settings; {ADVICE}"
        assert point["keys"] == before[name]["keys"], f"{entry}: {name} has another key; {ADVICE}"


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name.endswith("@cpu") else pytest.mark.long) for name in scaled_entries()],
)
def test_a_sweep_at_a_scale_has_the_points_and_keys_that_are_held(composer, held, name):
    plan = plan_of_one_seed(composer, name)
    plan.check()
    assert not plan.invalid and not plan.warnings() and not plan.same_points(), f"{name}: {plan.warnings()}"
    assert plan.comparisons and all(asked.why for asked in plan.comparisons), f"{name} says not what it tests, and why"
    assert summary(plan) == held.get(name), f"{name}: {ADVICE}"
