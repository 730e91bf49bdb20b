from dataclasses import replace

import numpy as np
import pytest

from moe_study.analysis.specialisation.hidden_states import (
    clusters,
    hidden_state_control,
    routed_by,
    shared_experts,
)
from moe_study.analysis.specialisation.information import information
from moe_study.errors import DataError
from tests.analysis.specialisation import naive
from tests.analysis.specialisation.planted_routes import planted_trace


def blobs(random, centre_T, width=8, spread=0.1):
    centres = random.normal(size=(int(centre_T.max()) + 1, width))
    return centres[centre_T] + spread * random.normal(size=(len(centre_T), width))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clusters_of_separate_blobs_are_the_blobs(random, dtype):
    blob_T = random.integers(5, size=3000)
    found = clusters(blobs(random, blob_T).astype(dtype), 5)
    pairs = set(zip(blob_T.tolist(), found.tolist(), strict=True))
    assert len(pairs) == 5
    assert np.array_equal(found, clusters(blobs(np.random.default_rng(11), blob_T), 5)) or len(set(found)) == 5


def test_too_few_different_hidden_states_are_refused():
    with pytest.raises(DataError, match="100 tokens do not have 4 different hidden states to cluster"):
        clusters(np.ones((100, 3)), 4)


def test_routes_that_are_the_clusters_keep_nothing_of_their_own(random):
    """Hidden states lie apart by language, and the router cuts between them: all of it is similarity."""
    trace = planted_trace(random, experts=2, documents=60)
    language_T, _ = trace.label("language")
    cluster_T = clusters(blobs(random, language_T, spread=0.05), 2)
    trace = replace(trace, expert_P=cluster_T)
    found = hidden_state_control(trace, cluster_T, "language", permutations=99)
    assert found.expert.value == pytest.approx(found.cluster.value) == pytest.approx(1)
    assert found.routes_explained == pytest.approx(1)
    assert found.expert_given_cluster.value == pytest.approx(0, abs=1e-9) and found.expert_given_cluster.p == 1


def test_routes_beyond_the_clusters_are_found_beyond_them(random):
    trace = planted_trace(random, "language", strength=2.0, taste=0.3, documents=60)
    cluster_T = random.integers(4, size=len(trace.token_T))  # hidden states that know nothing of language
    found = hidden_state_control(trace, cluster_T, "language", permutations=199)
    assert found.cluster.p > 0.01 and found.routes_explained < 0.01
    assert found.expert_given_cluster.p == 1 / 200
    assert found.expert_given_cluster.excess == pytest.approx(found.expert.excess, rel=0.2)


def test_labels_of_tokens_are_controlled_given_the_token_id_too(random):
    trace = planted_trace(random, "part of speech", strength=2.0)
    speech_T, _ = trace.label("part of speech")
    found = hidden_state_control(trace, speech_T * 2 + random.integers(2, size=len(speech_T)), "part of speech",
                                 permutations=99)  # fmt: skip
    assert found.expert.p == found.cluster.p == 0.01
    assert found.expert_given_cluster.value == pytest.approx(0, abs=1e-9)  # a cluster tells the part of speech
    assert found.expert.value == pytest.approx(information(trace, speech_T, trace.token_T).of_label)


def test_clusters_stand_in_for_experts_one_a_token(random):
    trace = planted_trace(random, top=2)
    other = routed_by(trace, trace.token_T, 24)
    assert information(other, trace.token_T).of_label == pytest.approx(1)


def test_shared_experts_agree_with_loops_over_their_pairs(random, monkeypatch):
    trace = planted_trace(random, "topic", top=2, strength=2.0)
    hidden_TH = blobs(random, trace.label("topic")[0], spread=1.0)
    found = shared_experts(trace, hidden_TH, "topic", "gate", pairs=3000, seed=4)
    draw = np.random.default_rng(4)
    able = np.arange(len(trace.token_T))
    first, second = draw.choice(able, 3000), draw.choice(able, 3000)
    weight = np.zeros((len(able), 4))
    for token, expert, share in naive.weights(trace, "gate"):
        weight[token, expert] += share
    rows = []
    for a, b in zip(first, second, strict=True):
        if trace.document_T[a] != trace.document_T[b]:
            overlap = sum(min(x, y) for x, y in zip(weight[a], weight[b], strict=True))
            cosine = hidden_TH[a] @ hidden_TH[b] / np.linalg.norm(hidden_TH[a]) / np.linalg.norm(hidden_TH[b])
            rows.append((overlap, cosine, trace.label("topic")[0][a] == trace.label("topic")[0][b]))
    overlap, cosine, same = np.array(rows).T
    same = same.astype(bool)
    assert found.pairs == len(rows)
    assert found.overlap == pytest.approx(overlap.mean(), abs=1e-9)
    assert found.same_label == pytest.approx(overlap[same].mean() - overlap[~same].mean(), abs=1e-9)
    bins = np.searchsorted(np.quantile(cosine, np.linspace(0, 1, 21)[1:-1]), cosine)
    within = sum(np.square(overlap[bins == b] - overlap[bins == b].mean()).sum() for b in range(20))
    assert found.explained == pytest.approx(1 - within / np.square(overlap - overlap.mean()).sum(), abs=1e-9)
    alike = [
        (overlap[(bins == b) & same].mean() - overlap[(bins == b) & ~same].mean(), ((bins == b) & same).sum())
        for b in range(20)
        if ((bins == b) & same).any() and ((bins == b) & ~same).any()
    ]
    assert found.same_label_alike == pytest.approx(np.average(*np.transpose(alike)[:1], weights=np.transpose(alike)[1]))


def test_a_label_adds_nothing_to_similarity_where_routes_follow_the_hidden_state_alone(random):
    trace = planted_trace(random, documents=200, experts=4)
    topic_T, _ = trace.label("topic")
    hidden_TH = blobs(random, topic_T, width=3, spread=1.0)
    hidden_TH /= np.linalg.norm(hidden_TH, axis=1, keepdims=True)
    follows = replace(trace, expert_P=(hidden_TH @ random.normal(size=(3, 4))).argmax(1))
    found = shared_experts(follows, hidden_TH, "topic")
    assert found.explained > 0.3 and found.same_label > 0.02
    assert abs(found.same_label_alike) < 0.3 * found.same_label
