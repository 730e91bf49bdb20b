import numpy as np
import pandas as pd
import pytest
from scipy import stats

from moe_study.analysis.comparison import Asked, Verdict, as_one_family, compare, measure
from moe_study.analysis.frame import load_frame
from moe_study.analysis.pairs import default_questions, default_reference
from moe_study.analysis.wording import best_first, sentence, to_frame
from moe_study.errors import StudyError
from tests.analysis import planted


def small_frame(losses, leaks=()):
    """A frame as load_frame makes it, with nothing but {label: {seed: loss}}; labels with "dense" are dense."""
    rows = [
        {
            "label": label,
            "seed": seed,
            "validation_loss": loss,
            "state": "done",
            "evaluation": "same",
            "leaks": label in leaks,
            "num_params": 1000 + 100 * place,
            "num_active_params": 1000,
            "executed_active_params": 1000,
            "routing.selection": "dense" if "dense" in label else "top_k",
            "routing.name": label,
        }
        for place, (label, by_seed) in enumerate(losses.items())
        for seed, loss in dict(by_seed).items()
    ]
    return pd.DataFrame(rows)


def seeds(*values):
    return dict(enumerate(values))


def only(frame, point="a", against="b", **options):
    (found,) = compare(frame, [(point, against)], **options)
    return found


def test_a_planted_effect_is_found_with_its_size_and_a_common_seed_effect_does_not_hide_it(tmp_path):
    planted.plant(tmp_path, seeds=range(5), common_sd=0.3, noise_sd=0.003)
    frame = load_frame([tmp_path])
    found = only(frame, "token top-2", "dense 1x")
    assert found.verdict is Verdict.LOWER
    assert found.difference.low < -0.14 < found.difference.high
    a, b = (frame[frame["label"] == name]["validation_loss"] for name in ("token top-2", "dense 1x"))
    unpaired = stats.ttest_ind(a, b).confidence_interval()
    assert found.difference.high - found.difference.low < 0.1 * (unpaired.high - unpaired.low)
    assert sentence(found).startswith("token top-2 has lower loss than dense 1x by 0.1")
    assert "5 seeds" in sentence(found)


def test_only_shared_seeds_are_compared():
    found = only(small_frame({"a": {0: 1.0, 1: 1.2, 2: 1.4, 9: 7.0}, "b": {2: 1.3, 1: 1.1, 0: 0.9, 5: 0.0}}))
    assert found.difference.n == 3 and found.difference.mean == pytest.approx(0.1)


def test_without_a_shared_seed_nothing_is_claimed():
    found = only(small_frame({"a": {0: 1.0}, "b": {1: 2.0}}))
    assert found.verdict is Verdict.NO_PAIR and "share no finished seed" in sentence(found)


def test_one_pair_gives_no_interval_and_says_so():
    found = only(small_frame({"a": {0: 1.0}, "b": {0: 2.0}}))
    assert found.verdict is Verdict.ONE_PAIR
    assert "lower by 1.0000 at the one seed" in sentence(found) and "no interval" in sentence(found)
    assert found.family == 0


def test_what_is_not_decided_says_how_many_seeds_it_would_take():
    found = only(small_frame({"a": seeds(1.00, 1.02), "b": seeds(1.05, 1.04)}))
    assert found.verdict is Verdict.UNCLEAR and 2 < found.seeds_needed < 10
    assert f"about {found.seeds_needed} seeds would decide it" in sentence(found)
    hopeless = only(small_frame({"a": seeds(1.0, 9.0, 1.0, 9.0), "b": seeds(9.0, 1.001, 9.0, 1.0)}))
    assert hopeless.seeds_needed is None and "more than 1000 seeds" in sentence(hopeless)


def test_sameness_is_said_only_when_the_equivalence_test_finds_it():
    a, b = seeds(1.000, 1.101, 1.199, 1.300), seeds(1.001, 1.100, 1.200, 1.299)
    same = only(small_frame({"a": a, "b": b}), margin=0.01)
    assert same.verdict is Verdict.SAME and "the same within 0.01 nats per token" in sentence(same)
    assert same.same_interval.low > -0.01 and same.same_interval.high < 0.01
    unclear = only(small_frame({"a": a, "b": b}), margin=0.001)
    assert unclear.verdict is Verdict.UNCLEAR and "cannot be told apart" in sentence(unclear)


def test_a_difference_inside_the_margin_is_called_small():
    found = only(small_frame({"a": seeds(1.0030, 1.1031, 1.2029), "b": seeds(1.0, 1.1, 1.2)}), margin=0.01)
    assert found.verdict is Verdict.HIGHER and "less than the margin of 0.01" in sentence(found)


def test_more_comparisons_make_each_call_harder():
    losses = {"a": seeds(1.0, 1.11, 1.2), "b": seeds(1.02, 1.12, 1.222)}
    assert only(small_frame(losses)).verdict is Verdict.LOWER
    others = {f"x{i}": seeds(1.02 + 0.3, 1.12, 1.222 - 0.3) for i in range(9)}
    found = compare(small_frame({**losses, **others}), [("a", "b"), *((name, "b") for name in others)])[0]
    assert found.verdict is Verdict.UNCLEAR and found.family == 10
    assert found.interval.low < 0 < found.interval.high and found.difference.high < 0
    assert found.p == pytest.approx(10 * found.difference.p)


def test_what_was_measured_without_a_test_has_no_verdict_and_costs_nobody_anything():
    frame = small_frame({"a": seeds(1.0, 1.11, 1.2), "b": seeds(1.02, 1.12, 1.222), "c": seeds(3.0, 3.1, 3.3)})
    described = measure(frame, [Asked("c", "a")])
    assert described[0].verdict is Verdict.NOT_PLANNED and "not planned" in sentence(described[0])
    (tested,) = as_one_family(measure(frame, [Asked("a", "b")]))
    assert tested.family == 1 and tested.interval.level == pytest.approx(0.95)


def test_each_comparison_may_have_a_margin_of_its_own():
    frame = small_frame({"a": seeds(1.000, 1.101, 1.199, 1.300), "b": seeds(1.011, 1.108, 1.212, 1.308)})
    wide, usual = as_one_family(measure(frame, [Asked("a", "b", margin=0.05), Asked("a", "b")], 0.01))
    assert (wide.margin, usual.margin) == (0.05, 0.01)
    assert wide.p_same < 0.05 < usual.p_same


def test_answers_are_ordered_by_what_is_gained_and_then_by_how_soon_they_would_be_decided():
    base = np.array([1.0, 1.1, 1.2, 1.3])
    noise = np.array([0.001, -0.001, 0.001, -0.001])
    shifts = {"best": -0.5 + noise, "good": -0.2 + noise, "same": noise, "worse": 0.3 + noise}
    shifts |= {"near": 20 * noise - 0.02, "far": 90 * noise - 0.02}
    frame = small_frame({"dense": seeds(*base), **{name: seeds(*(base + shift)) for name, shift in shifts.items()}})
    found = best_first(compare(frame, [(name, "dense") for name in sorted(shifts)]))
    assert [c.point for c in found] == ["best", "good", "same", "worse", "near", "far"]
    assert [c.decided for c in found] == [True] * 4 + [False] * 2


def test_the_reference_is_the_smallest_dense_point_that_does_not_leak():
    frame = small_frame({"dense big": seeds(1.0), "a": seeds(1.0), "dense small": seeds(1.0)})
    frame.loc[frame["label"] == "dense small", "num_params"] = 10
    assert default_reference(frame) == "dense small"
    assert default_reference(small_frame({"leak": seeds(1.0), "b": seeds(2.0)}, leaks=["leak"])) == "b"


def test_questions_are_the_reference_the_twins_and_single_changes(tmp_path):
    planted.plant(tmp_path)
    questions = default_questions(load_frame([tmp_path]), "dense 1x")
    reference, twins, single = ({frozenset(pair) for pair in pairs} for pairs in questions.values())
    mixtures = ("token top-1", "token top-2", "token top-2, frozen")
    assert reference == {frozenset({name, "dense 1x"}) for name in ("dense 2x", *mixtures)}
    assert twins == {frozenset({name, "dense 2x"}) for name in mixtures[1:]}  # equal active parameters
    assert single == {frozenset({"token top-2", "token top-2, frozen"})}  # no pair is asked twice


def test_points_of_a_question_are_ordered_by_their_mean_loss():
    frame = small_frame({"dense": seeds(3.0, 3.0), "a": seeds(1.0, 2.0), "b": seeds(1.2, 1.2), "c": seeds(0.9, 3.0)})
    (first, *_) = default_questions(frame, "dense").values()
    assert [point for point, _ in first] == ["b", "a", "c"]


def test_leaking_points_are_compared_only_when_asked(tmp_path):
    planted.plant(tmp_path)
    frame = load_frame([tmp_path])
    leaking = ("sequence top-2", "dense 1x")
    assert not any(leaking in pairs for pairs in default_questions(frame, "dense 1x").values())
    asked = default_questions(frame, "dense 1x", rank_leaking=True)
    assert leaking in asked["Against dense 1x"]


def test_losses_on_different_text_are_not_compared():
    frame = small_frame({"a": seeds(1.0, 1.1), "b": seeds(1.0, 1.1)})
    frame.loc[0, "evaluation"] = "other"
    with pytest.raises(StudyError, match="different data"):
        only(frame)


def test_an_unknown_label_is_answered_with_the_known_ones():
    with pytest.raises(StudyError, match=r"no finished run is called c; the points here are a, b"):
        only(small_frame({"a": seeds(1.0), "b": seeds(1.0)}), "c")


def test_settings_in_which_two_points_differ_are_listed(tmp_path):
    planted.plant(tmp_path)
    (found,) = compare(load_frame([tmp_path]), [("token top-2, frozen", "token top-2")])
    assert found.differs_in == ("routing.router_state",)
    table = to_frame([found])
    assert table.loc[0, "differs_in"] == "routing.router_state" and table.loc[0, "n"] == 2
