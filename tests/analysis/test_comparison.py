import numpy as np
import pandas as pd
import pytest
from scipy import stats

from moe_study.analysis.comparison import Verdict, compare
from moe_study.analysis.frame import load_frame
from moe_study.analysis.pairs import default_questions, default_reference
from moe_study.analysis.wording import pooled_note, sentence, to_frame
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
    assert "5 paired seeds" in sentence(found)


def test_only_shared_seeds_are_compared():
    found = only(small_frame({"a": {0: 1.0, 1: 1.2, 2: 1.4, 9: 7.0}, "b": {2: 1.3, 1: 1.1, 0: 0.9, 5: 0.0}}))
    assert found.difference.n == 3 and found.difference.mean == pytest.approx(0.1)


def test_without_a_shared_seed_nothing_is_claimed():
    found = only(small_frame({"a": {0: 1.0}, "b": {1: 2.0}}))
    assert found.verdict is Verdict.NO_PAIR and "share no seed" in sentence(found)


def test_one_pair_gives_no_interval_and_says_so():
    found = only(small_frame({"a": {0: 1.0}, "b": {0: 2.0}}))
    assert found.verdict is Verdict.ONE_PAIR
    assert "lower loss by 1.0000 nats" in sentence(found) and "no interval" in sentence(found)
    assert found.family == 0


def test_two_seeds_with_a_wide_interval_say_so_and_whether_the_sign_agrees():
    agree = only(small_frame({"a": seeds(1.00, 1.02), "b": seeds(1.05, 1.04)}))
    differ = only(small_frame({"a": seeds(1.00, 1.05), "b": seeds(1.05, 1.04)}))
    assert agree.verdict is differ.verdict is Verdict.UNCLEAR
    assert "with 2 seeds the interval is too wide to tell" in sentence(agree)
    assert "the sign agrees in both (lower)" in sentence(agree)
    assert "the signs disagree" in sentence(differ)


def test_sameness_is_said_only_when_the_equivalence_test_finds_it():
    a, b = seeds(1.000, 1.101, 1.199, 1.300), seeds(1.001, 1.100, 1.200, 1.299)
    same = only(small_frame({"a": a, "b": b}), margin=0.01)
    assert same.verdict is Verdict.SAME and "the same within 0.01 nats" in sentence(same)
    unclear = only(small_frame({"a": a, "b": b}), margin=0.001)
    assert unclear.verdict is Verdict.UNCLEAR and "cannot be told apart" in sentence(unclear)


def test_a_difference_inside_the_margin_is_called_small():
    found = only(small_frame({"a": seeds(1.0030, 1.1031, 1.2029), "b": seeds(1.0, 1.1, 1.2)}), margin=0.01)
    assert found.verdict is Verdict.HIGHER and "below the margin of 0.01 nats" in sentence(found)


def test_more_comparisons_make_each_call_harder():
    losses = {"a": seeds(1.0, 1.11, 1.2), "b": seeds(1.02, 1.12, 1.222)}
    assert only(small_frame(losses)).verdict is Verdict.LOWER
    others = {f"x{i}": seeds(1.02 + 0.3, 1.12, 1.222 - 0.3) for i in range(9)}
    found = compare(small_frame({**losses, **others}), [("a", "b"), *((name, "b") for name in others)])[0]
    assert found.verdict is Verdict.UNCLEAR and "10 comparisons" in sentence(found)
    assert found.p == pytest.approx(10 * found.difference.p)


def test_pure_noise_is_called_a_difference_in_at_most_five_percent_of_studies():
    random, called, studies = np.random.default_rng(3), 0, 150
    names = ["dense", "a", "b", "c"]
    for _ in range(studies):
        common = random.normal(0, 0.05, 3)
        frame = small_frame({name: seeds(*(4 + common + random.normal(0, 0.01, 3))) for name in names})
        found = compare(frame, [(name, "dense") for name in names[1:]], margin=1e-6)
        called += any(one.verdict in (Verdict.LOWER, Verdict.HIGHER) for one in found)
    assert called / studies < 0.05 + 4 * np.sqrt(0.05 * 0.95 / studies)


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
    assert np.isnan(compare(frame, [leaking])[0].p_pooled)  # its noise is not the others'


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
    table = to_frame({"q": [found]})
    assert table.loc[0, "differs_in"] == "routing.router_state" and table.loc[0, "n"] == 2


def test_pooled_noise_tells_apart_what_two_seeds_alone_cannot():
    random = np.random.default_rng(2)
    effects = {"dense": 0.0, "a": -0.1, "b": -0.1, "c": 0.0, "d": 0.0, "e": 0.0}
    common = random.normal(0, 0.1, 2)
    frame = small_frame({name: seeds(*(4 + e + common + random.normal(0, 0.01, 2))) for name, e in effects.items()})
    found = {c.point: c for c in compare(frame, [(name, "dense") for name in "abcde"])}
    assert found["a"].verdict is Verdict.UNCLEAR and found["a"].p_pooled < 0.05 < found["c"].p_pooled
    assert "with pooled noise ±0.0" in sentence(found["a"]) and sentence(found["a"]).endswith("told apart.")
    assert sentence(found["c"]).endswith("not told apart either.")


def test_the_pooled_note_appears_only_where_it_helps():
    random = np.random.default_rng(0)

    def note(points, runs):
        return pooled_note(small_frame({f"p{i}": seeds(*random.normal(4, 0.1, runs)) for i in range(points)}))

    assert "(5 degrees, " in note(6, 2) and "has 1 degree of freedom" in note(6, 2)
    assert note(6, 1) == "" and note(6, 5) == ""


def test_pooled_noise_falsely_tells_apart_in_at_most_five_percent_of_studies():
    random, called, studies = np.random.default_rng(5), 0, 150
    names = ["dense", "a", "b", "c"]
    for _ in range(studies):
        common = random.normal(0, 0.05, 2)
        frame = small_frame({name: seeds(*(4 + common + random.normal(0, 0.01, 2))) for name in names})
        called += any(c.p_pooled < 0.05 for c in compare(frame, [(name, "dense") for name in names[1:]]))
    assert called / studies < 0.05 + 4 * np.sqrt(0.05 * 0.95 / studies)
