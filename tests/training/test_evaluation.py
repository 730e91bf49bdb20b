import math

import numpy as np
import pytest
import torch
from torch import nn

from moe_study.errors import DataError
from moe_study.runs.activations import COLUMNS as ROUTING_COLUMNS
from moe_study.training.evaluation import evaluate
from tests.training.doubles import CONTEXT, EXPERTS, TinyCorpus, TinyModel, TinySampler, tiny_validation

CPU = torch.device("cpu")
TOKENS = 20 * CONTEXT


def run(model=None, *, batch_size=8, detail=True, corpus=None, **settings):
    corpus = corpus or TinyCorpus()
    batches = tiny_validation(corpus.validation, CONTEXT, batch_size, TOKENS)
    return evaluate(model or TinyModel(), batches, corpus, CPU, detail=detail, **settings)


def reference_losses(model):
    """Loss of every token in plain loops over the model's own logits, float64."""
    model = model.double().eval()
    batch = TinySampler(TOKENS // CONTEXT, TinyCorpus().validation.seed).batch(0)
    output = model(torch.from_numpy(batch.inputs_BT), torch.from_numpy(batch.targets_BT), per_token=True)
    return output.token_loss_BT.numpy(), batch


def test_the_loss_is_the_plain_mean_over_all_tokens_and_by_domain():
    evaluation = run()
    loss_BT, batch = reference_losses(TinyModel())
    assert evaluation.tokens == loss_BT.size
    assert evaluation.loss == pytest.approx(loss_BT.mean(), rel=1e-6)
    assert evaluation.perplexity == pytest.approx(math.exp(loss_BT.mean()), rel=1e-5)
    for i, name in enumerate(TinyCorpus().languages):
        chosen = loss_BT[batch.language_B == i]
        expected = {"loss": pytest.approx(chosen.mean(), rel=1e-6), "tokens": chosen.size}
        assert evaluation.by_language[name] == expected
    for i, name in enumerate(TinyCorpus().topics):
        assert evaluation.by_topic[name]["loss"] == pytest.approx(loss_BT[batch.topic_B == i].mean(), rel=1e-6)


def test_bits_per_byte_counts_the_bytes_of_the_targets():
    loss_BT, batch = reference_losses(TinyModel())
    number = sum(int(TinyCorpus().token_bytes_V[token]) for token in batch.targets_BT.flatten())
    assert run().bits_per_byte == pytest.approx(loss_BT.sum() / math.log(2) / number, rel=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 20])
def test_the_batch_size_does_not_change_the_result(batch_size):
    one, other = run(batch_size=batch_size), run(batch_size=8)
    assert one.loss == pytest.approx(other.loss, rel=1e-6)
    assert one.routing["count"].tolist() == other.routing["count"].tolist()
    assert one.rows_per_token == other.rows_per_token


def test_balancing_terms_and_dropout_and_noise_do_not_enter():
    losses = {run(TinyModel(dropout=d, noise=n, aux_weight=a)).loss for d, n, a in [(0, 0, 0), (0.5, 3, 100)]}
    assert len(losses) == 1


def test_ignored_targets_count_nowhere():
    corpus = TinyCorpus()
    batch = TinySampler(20, 99, ignore=0.5).batch(0)
    evaluation = evaluate(TinyModel(), [batch], corpus, CPU)
    assert evaluation.tokens == int((batch.targets_BT >= 0).sum()) < 20 * CONTEXT
    assert sum(part["tokens"] for part in evaluation.by_topic.values()) == evaluation.tokens


def test_routing_counts_by_domain_match_a_plain_loop():
    evaluation, model = run(), TinyModel().eval()
    batch = TinySampler(TOKENS // CONTEXT, 99).batch(0)
    expected: dict[tuple, list] = {}
    for b in range(len(batch.inputs_BT)):  # one sequence at a time
        row = slice(b, b + 1)
        inputs_BT, targets_BT = torch.from_numpy(batch.inputs_BT[row]), torch.from_numpy(batch.targets_BT[row])
        stats = model(inputs_BT, targets_BT, detail=True).stats
        for expert in range(EXPERTS):
            key = (0, expert, ("de", "en")[batch.language_B[b]], ("law", "news", "talk")[batch.topic_B[b]])
            sums = expected.setdefault(key, [0, 0.0, 0])
            sums[0] += int(stats[0].kept_BE[0, expert])
            sums[1] += float(stats[0].weight_BE[0, expert])
            sums[2] += CONTEXT
    frame = evaluation.routing
    assert list(frame.columns) == list(ROUTING_COLUMNS)
    found = {tuple(row[:4]): list(row[4:]) for row in frame.itertuples(index=False)}
    assert found.keys() == expected.keys()
    for key, (count, weight, tokens) in expected.items():
        assert found[key] == [count, pytest.approx(weight, rel=1e-5), tokens]
    assert frame["count"].sum() == TOKENS  # top-1
    assert evaluation.rows_per_token["wanted_per_token"] == {"0": 1.0}


def test_without_detail_the_routing_table_is_empty_but_has_its_columns():
    evaluation = run(detail=False)
    assert list(evaluation.routing.columns) == list(ROUTING_COLUMNS)
    assert len(evaluation.routing) == 0


def test_training_mode_gradients_and_random_numbers_are_left_as_they_were():
    model = TinyModel()
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    run(model)
    assert torch.equal(torch.rand(2), expected)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert float(model.usage_E.sum()) == 0  # state that only training may move


def test_the_perplexity_of_a_model_that_diverged_is_not_finite():
    model = TinyModel()
    nn.init.constant_(model.embedding, float("nan"))
    assert not math.isfinite(run(model).perplexity)
    nn.init.normal_(model.embedding, std=1e3)  # finite, but exp of it is not
    assert not math.isfinite(run(model).perplexity)


def test_an_empty_validation_set_is_an_error_in_words():
    with pytest.raises(DataError, match="validation"):
        evaluate(TinyModel(), [], TinyCorpus(), CPU)


def test_sums_are_float64():
    """A million equal token losses of 0.1: a float32 sum would be off in the fifth digit."""

    class Constant(TinyModel):
        def forward(self, tokens_BT, targets_BT=None, **settings):
            output = super().forward(tokens_BT[:, :1], targets_BT[:, :1], **settings)
            output.token_loss_BT = torch.full(targets_BT.shape, 0.1)
            return output

    zeros = np.zeros((1000, 100), dtype=np.int64)
    from tests.training.doubles import Batch

    batches = [Batch(zeros, zeros + 1, zeros[:, 0], zeros[:, 0])] * 10
    assert evaluate(Constant(), batches, TinyCorpus(), CPU).loss == pytest.approx(float(np.float32(0.1)), abs=1e-12)
