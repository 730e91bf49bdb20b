from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from moe_study.analysis.specialisation import nulls
from moe_study.analysis.specialisation.information import information
from moe_study.analysis.specialisation.rows import information_rows, over_seeds
from moe_study.errors import DataError
from tests.analysis.specialisation.conftest import without_picks
from tests.analysis.specialisation.planted_routes import planted_trace
from tests.told import told


@pytest.mark.parametrize("by", ["picks", "gate"])
def test_every_value_of_a_row_is_its_information_over_the_entropy_of_the_label(trace, by):
    given_T = {"": None, "token id": trace.token_T}
    for row in information_rows([trace], by, permutations=19):
        codes_T = trace.token_T if row.label == "token id" else trace.label(row.label)[0]
        if row.given in given_T:
            found = information(trace, codes_T, given_T[row.given], by)
            assert row.measured.value == pytest.approx(found.of_label, abs=1e-9)
            assert row.measured.tokens == found.tokens
        else:
            other_T = trace.label(row.given)[0]
            found = information(trace, np.where(other_T < 0, -1, codes_T), other_T, by)
            assert row.measured.nats == pytest.approx(found.nats, abs=1e-9)


def test_p_band_and_excess_are_those_of_the_draws(trace):
    for row in information_rows([trace], permutations=99):
        each = row.measured
        assert each.p == (1 + np.sum(each.null_R >= each.value - 1e-9)) / 100
        assert (each.null_low, each.null_high) == pytest.approx(tuple(np.quantile(each.null_R, [0.025, 0.975])))
        assert each.excess == pytest.approx(each.value - each.null_R.mean())
        assert 0 <= each.movable <= 1


def test_split_halves_of_a_label_tell_as_little_as_a_label_that_means_nothing(random):
    """One label value and its halves: the same as two labels dealt out at random, which is what the null is."""
    floors, nulls_ = [], []
    for _ in range(40):
        probe = planted_trace(random, taste=1.0)
        halves = (np.arange(40) % 2, ("a", "b"))
        one = replace(probe, document_labels={"one": (np.zeros(40, dtype=int), ("a",)), "halves": halves})
        floors.append(nulls.document_label([one], "one", permutations=1)[0].floor)
        nulls_.append(nulls.document_label([one], "halves", permutations=99)[0].null_mean)
    assert np.mean(floors) == pytest.approx(np.mean(nulls_), rel=0.03)
    alone = replace(probe, document_labels={"own": (np.arange(40), tuple(str(n) for n in range(40)))})
    assert np.isnan(nulls.document_label([alone], "own", permutations=1)[0].floor)


def test_layers_share_their_draws_and_do_not_disturb_one_another(random):
    first = planted_trace(random, "topic")
    second = replace(first, expert_P=random.integers(4, size=len(first.expert_P)))
    together = information_rows([first, second], permutations=150)
    apart = [*information_rows([first], permutations=150), *information_rows([second], permutations=150)]
    for one, other in zip(together, apart, strict=True):
        assert (one.label, one.given, one.measured.p) == (other.label, other.given, other.measured.p)
        assert one.measured.null_R == pytest.approx(other.measured.null_R, abs=1e-12)
    assert [row.layer for row in together] == [0] * 11 + [1] * 11


def test_the_same_seed_gives_the_same_rows_and_another_seed_other_draws(trace):
    rows = [told(information_rows([trace], permutations=30, seed=seed)) for seed in (1, 1, 2)]
    assert rows[0] == rows[1] != rows[2]


def test_more_draws_than_are_made_in_full_agree_with_full_ones(random, monkeypatch):
    trace = planted_trace(random, "part of speech", taste=0.7)
    few = information_rows([trace], permutations=2000)
    monkeypatch.setattr(nulls, "FULL_DRAWS", 2000)
    for fast, slow in zip(few, information_rows([trace], permutations=2000), strict=True):
        spread = slow.measured.null_R.std()
        assert fast.measured.null_mean == pytest.approx(slow.measured.null_mean, abs=0.5 * spread)
        assert fast.measured.null_R.std() == pytest.approx(spread, rel=0.25)
        assert fast.measured.p == pytest.approx(slow.measured.p, abs=0.15)


def test_compact_numbers_give_the_same_rows_as_wide_ones(trace):
    weight_P = np.asarray(trace.weight_P, dtype=np.float16)
    labels_D = {name: (np.resize(codes, 3040), names) for name, (codes, names) in trace.document_labels.items()}
    labels_T = {name: (codes.astype(np.int8), names) for name, (codes, names) in trace.token_labels.items()}
    wide = replace(trace, document_T=trace.document_T + 3000, weight_P=weight_P.astype(float), document_labels=labels_D)
    compact = replace(
        wide,
        token_T=trace.token_T.astype(np.uint16),
        document_T=wide.document_T.astype(np.uint16),
        start_T1=trace.start_T1.astype(np.uint32),
        expert_P=trace.expert_P.astype(np.uint8),
        weight_P=weight_P,
        document_labels={name: (codes.astype(np.int8), names) for name, (codes, names) in labels_D.items()},
        token_labels=labels_T,
    )
    of_compact, of_wide = (told(information_rows([one], "gate", permutations=19)) for one in (compact, wide))
    assert of_compact == of_wide


def test_labels_that_all_share_and_layers_without_experts_give_no_rows(random):
    trace = planted_trace(random)
    one = replace(trace, document_labels={"language": (np.zeros(40, dtype=int), ("en",))}, token_labels={})
    assert [row.label for row in information_rows([one], permutations=9)] == ["token id"]
    assert information_rows([]) == []


def test_a_layer_that_picks_nothing_has_no_number_and_no_finding(random):
    for row in information_rows([without_picks(planted_trace(random))], permutations=9):
        assert np.isnan(row.measured.value) and row.measured.p == 1 and row.measured.tokens == 0


def test_layers_of_two_runs_are_not_measured_together(random):
    with pytest.raises(DataError, match="of one run over one probe; their tokens differ"):
        information_rows([planted_trace(random), planted_trace(random)], permutations=9)


def test_over_seeds_holds_a_t_interval_and_the_null_of_the_mean(random):
    probe = planted_trace(random, taste=1.0)
    seeds = [replace(probe, expert_P=random.integers(4, size=len(probe.expert_P))) for _ in range(4)]
    rows_S = [information_rows([seed], permutations=49) for seed in seeds]
    for row, *of_seeds in zip(over_seeds(rows_S), *rows_S, strict=True):
        excess = [each.measured.excess for each in of_seeds]
        assert row.excess.mean == pytest.approx(np.mean(excess))
        reference = stats.ttest_1samp(excess, 0)
        assert row.p_seeds == pytest.approx(reference.pvalue)
        assert (row.excess.low, row.excess.high) == pytest.approx(tuple(reference.confidence_interval(0.95)))
        null = np.mean([each.measured.null_R for each in of_seeds], axis=0)
        assert row.p_documents == (1 + np.sum(null >= row.value.mean - 1e-9)) / 50
    other_draws = information_rows(seeds[1:2], permutations=49, seed=1)
    assert np.isnan([row.p_documents for row in over_seeds([rows_S[0], other_draws])]).all()
    with pytest.raises(DataError, match="different layers or labels"):
        over_seeds([rows_S[0], rows_S[1][1:]])


def test_tastes_that_seeds_share_are_significant_over_seeds_and_not_over_documents():
    """All seeds read the same documents: a chance of these documents repeats itself in every seed."""
    fooled_seeds, fooled_documents = [], []
    for case in range(30):
        random = np.random.default_rng(case)
        probe = planted_trace(random)
        taste_TE = random.normal(size=(40, 4))[probe.document_T]
        seeds = [replace(probe, expert_P=(taste_TE + random.gumbel(size=taste_TE.shape)).argmax(1)) for _ in range(4)]
        measured = [nulls.document_label([seed], "topic", permutations=99)[0] for seed in seeds]
        excess = [each.excess for each in measured]
        null = np.mean([each.null_R for each in measured], axis=0)
        fooled_seeds.append(stats.ttest_1samp(excess, 0).pvalue <= 0.05)
        fooled_documents.append((1 + np.sum(null >= np.mean([each.value for each in measured]))) / 100 <= 0.05)
    assert np.mean(fooled_seeds) > 0.4
    assert np.mean(fooled_documents) <= 0.2
