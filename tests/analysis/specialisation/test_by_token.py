"""Loss and work by groups of tokens, against loops."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from moe_study.analysis.specialisation.by_token import (
    COLUMNS,
    FIFTHS,
    by_token,
    experts_per_token,
    frequency_label,
)

WINDOW = 4
LENGTHS = (6, 1, 9)


@pytest.fixture
def made(random):
    """A trace of three documents, windows of four tokens, two layers with 0 to 3 picks a token, some dropped."""
    tokens = sum(LENGTHS)
    document_T = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    position_T = np.concatenate([np.arange(length) for length in LENGTHS])
    loss_T = random.random(tokens)
    loss_T[position_T == 0] = np.nan
    labels = {"language": (np.array([0, 1, 1]), ("de", "en"))}
    token_labels = {"part of speech": (random.integers(-1, 2, tokens), ("noun", "verb"))}
    token_T = random.integers(0, 5, tokens)

    def layer(_):
        count_T = random_counts[_]
        picks = int(count_T.sum())
        return {
            "token_T": token_T,
            "document_T": document_T,
            "position_T": position_T,
            "start_T1": np.concatenate([[0], np.cumsum(count_T)]),
            "expert_P": np.zeros(picks, dtype=int),
            "weight_P": np.ones(picks),
            "kept_P": kept[_],
            "experts": 4,
            "entropy_T": np.zeros(tokens),
            "margin_T": np.zeros(tokens),
            "document_labels": labels,
            "token_labels": token_labels,
        }

    random_counts = [random.integers(0, 4, tokens) for _ in range(2)]
    kept = [random.random(int(count_T.sum())) < 0.7 for count_T in random_counts]
    return SimpleNamespace(
        token_T=token_T, document_T=document_T, position_T=position_T, loss_T=loss_T, window=WINDOW, layers=[0, 1],
        layer=layer, document_labels=labels, token_labels=token_labels, counts=random_counts, kept=kept,
    )  # fmt: skip


def work_by_hand(trace):
    work = []
    for token in range(len(trace.token_T)):
        layers = []
        for count_T, kept_P in zip(trace.counts, trace.kept, strict=True):
            first = int(count_T[:token].sum())
            layers.append(int(kept_P[first : first + count_T[token]].sum()))
        work.append(sum(layers) / len(layers))
    return work


def test_work_is_the_kept_picks_of_a_token_averaged_over_layers(made):
    assert experts_per_token(made) == pytest.approx(work_by_hand(made))


def test_groups_by_label_agree_with_loops(made):
    table, work = by_token(made).set_index(["by", "name"]), work_by_hand(made)
    of = {
        "language": [("de", "en")[int(d > 0)] for d in made.document_T],
        "part of speech": [("noun", "verb", None)[code] for code in made.token_labels["part of speech"][0]],
    }
    for by, names in of.items():
        for name in set(names) - {None}:
            own = [token for token, other in enumerate(names) if other == name]
            losses = [made.loss_T[token] for token in own if not math.isnan(made.loss_T[token])]
            row = table.loc[(by, name)]
            assert row["tokens"] == len(own) and row["predicted"] == len(losses)
            assert row["loss"] == pytest.approx(sum(losses) / len(losses))
            assert row["experts"] == pytest.approx(sum(work[token] for token in own) / len(own))


def test_position_is_what_stands_before_in_the_window(made):
    """A token after the first of a window is predicted from its own window; the first of one from all of the last."""
    table, work = by_token(made), work_by_hand(made)
    table = table[table["by"] == "position"].set_index("name")
    before = {"1": [], "2-3": [], "4-7": []}  # whole window: 4
    own = {"0": [], "1": [], "2-3": []}
    for token, position in enumerate(made.position_T):
        own["0" if position % WINDOW == 0 else "1" if position % WINDOW == 1 else "2-3"].append(work[token])
        if position:
            seen = 4 if position % WINDOW == 0 else position % WINDOW
            before["1" if seen == 1 else "2-3" if seen < 4 else "4-7"].append(made.loss_T[token])
    for name, losses in before.items():
        assert table.loc[name, "predicted"] == len(losses)
        assert table.loc[name, "loss"] == pytest.approx(np.mean(losses))
    for name, experts in own.items():
        assert table.loc[name, "tokens"] == len(experts)
        assert table.loc[name, "experts"] == pytest.approx(np.mean(experts))
    assert table.loc["0", "predicted"] == 0 and math.isnan(table.loc["0", "loss"])
    assert table.loc["4-7", "tokens"] == 0 and math.isnan(table.loc["4-7", "experts"])


def test_hardness_is_the_loss_of_the_next_token_of_the_document(made):
    table, work = by_token(made), work_by_hand(made)
    table = table[table["by"] == "loss of the next token"]
    following = {t: made.loss_T[t + 1] for t in range(len(work) - 1) if made.document_T[t] == made.document_T[t + 1]}
    ordered = sorted(following, key=following.get)
    assert table["tokens"].sum() == len(ordered) == sum(LENGTHS) - len(LENGTHS)
    groups = [[t for place, t in enumerate(ordered) if 10 * place // len(ordered) == tenth] for tenth in range(10)]
    assert list(table["experts"]) == pytest.approx([np.mean([work[t] for t in group]) for group in groups])
    assert table["name"].iloc[0] == "1 (easiest)" and table["name"].iloc[-1] == "10 (hardest)"


def test_fifths_go_from_the_most_frequent_ids_on():
    token_T = np.repeat([7, 3, 5, 1, 0, 2], [8, 4, 3, 3, 1, 1])
    code_T, names = frequency_label(token_T)
    assert names == FIFTHS
    # Before 7 stand no tokens of more frequent ids, before 3 eight of twenty, before 1 twelve, before 5 fifteen, ...
    assert dict(zip(token_T.tolist(), code_T.tolist(), strict=True)) == {7: 0, 3: 2, 1: 3, 5: 3, 0: 4, 2: 4}


def test_a_model_without_mixtures_has_losses_and_no_work(made):
    made.layers = []
    table = by_token(made)
    assert list(table) == list(COLUMNS) and table["experts"].isna().all() and table["loss"].notna().any()
