"""Token embeddings: learned, frozen and redrawn, and a head of its own beside them."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from moe_study.design.config import Embeddings, ModelConfig
from moe_study.design.routing import Routing, Selection
from moe_study.model.gpt import GPT
from tests.model import reference

DENSE, TOP_2 = Routing(selection=Selection.DENSE), Routing(k=2)
TIED = ModelConfig(layers=2, heads=2, width=8, context=12)
VOCABULARY = 11
EMBEDDING, HEAD = "token_embedding.weight", "head.weight"
FIXED = [Embeddings.FROZEN, Embeddings.REDRAWN]


def model(embeddings: Embeddings = Embeddings.LEARNED, seed: int = 0, routing: Routing = TOP_2, **sizes: Any) -> GPT:
    """With a head of its own."""
    settings = dataclasses.replace(TIED, tied_head=False, embeddings=embeddings, **sizes)
    return GPT(settings, routing, VOCABULARY, seed)


def tokens(seed: int = 0) -> Tensor:
    return torch.randint(VOCABULARY, (3, 12), generator=torch.Generator().manual_seed(seed))


def values(gpt: GPT, name: str) -> Tensor:
    return gpt.get_parameter(name).detach().clone()


def train(gpt: GPT, steps: range) -> None:
    decay, no_decay = gpt.decay_groups()
    groups = [{"params": decay, "weight_decay": 0.5}, {"params": no_decay, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.1)
    gpt.train()
    for step in steps:
        gpt.begin_step(step)
        loss = gpt(tokens(step), tokens(step + 100)).loss
        assert loss is not None
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        gpt.end_step()


def test_logits_by_a_head_of_its_own_equal_a_reference_in_plain_loops() -> None:
    gpt = model(routing=DENSE).double().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in gpt.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    weights = {name: parameter.detach().numpy() for name, parameter in gpt.named_parameters()}
    expected = [reference.logits(weights, row, TIED.layers, TIED.heads, None) for row in tokens().tolist()]
    found = gpt(tokens()).logits_BTV
    np.testing.assert_allclose(found.detach().numpy(), np.array(expected), rtol=0, atol=1e-11)
    with_loss = gpt(tokens(), tokens(1), return_logits=True)
    without = gpt(tokens(), tokens(1))  # whose logits may be made in chunks
    torch.testing.assert_close(with_loss.loss, without.loss)


@pytest.mark.parametrize("embeddings", Embeddings)
def test_runs_of_one_seed_begin_as_one_function_tied_or_not(embeddings: Embeddings) -> None:
    tied, untied = GPT(TIED, TOP_2, VOCABULARY, 7), model(embeddings, seed=7)
    assert torch.equal(tied(tokens()).logits_BTV, untied(tokens()).logits_BTV)
    assert untied.state_dict().keys() == tied.state_dict().keys() | {HEAD}
    for name, value in tied.state_dict().items():
        assert torch.equal(value, untied.state_dict()[name]), name


def test_a_head_of_its_own_goes_its_own_way() -> None:
    gpt = model()
    assert torch.equal(values(gpt, EMBEDDING), values(gpt, HEAD))
    train(gpt, range(1))
    assert not torch.equal(values(gpt, EMBEDDING), values(gpt, HEAD))


def test_learned_embeddings_move_and_frozen_ones_never_do_while_the_head_learns() -> None:
    for state in (Embeddings.LEARNED, Embeddings.FROZEN):
        gpt = model(state)
        embedding, head = values(gpt, EMBEDDING), values(gpt, HEAD)
        train(gpt, range(3))
        assert torch.equal(values(gpt, EMBEDDING), embedding) is (state is Embeddings.FROZEN)
        assert not torch.isclose(values(gpt, HEAD), head).any()


@pytest.mark.parametrize("state", FIXED)
def test_embeddings_that_are_not_learned_ask_for_no_gradient_and_no_decay(state: Embeddings) -> None:
    gpt = model(state)
    moved = {id(parameter) for group in gpt.decay_groups() for parameter in group}
    left_out = [name for name, parameter in gpt.named_parameters() if id(parameter) not in moved]
    assert left_out == [EMBEDDING]
    train(gpt, range(1))
    assert gpt.get_parameter(EMBEDDING).grad is None


def test_redrawn_embeddings_are_a_function_of_seed_and_step() -> None:
    def drawn(seed: int, *steps: int) -> Tensor:
        gpt = model(Embeddings.REDRAWN, seed)
        for step in steps:
            gpt.begin_step(step)
        return values(gpt, EMBEDDING)

    assert torch.equal(drawn(0, 4), drawn(0, 1, 2, 3, 4))  # so every rank has the same, and a resumed run
    initial, fourth = drawn(0), drawn(0, 4)
    for other in (drawn(0, 5), drawn(1, 4), initial):
        assert not torch.isclose(fourth, other).any()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    drawn(0, 1)
    assert torch.equal(torch.get_rng_state(), state)


def test_redrawn_embeddings_have_the_deviation_of_the_first_draw() -> None:
    gpt = GPT(dataclasses.replace(TIED, tied_head=False, embeddings=Embeddings.REDRAWN, init_std=0.3), DENSE, 900)
    gpt.begin_step(3)
    assert gpt.get_parameter(EMBEDDING).std().item() == pytest.approx(0.3, rel=0.03)


def test_evaluation_reads_the_last_embeddings_drawn_and_draws_none() -> None:
    gpt = model(Embeddings.REDRAWN)
    train(gpt, range(2))
    before = values(gpt, EMBEDDING)
    assert torch.equal(gpt.eval()(tokens()).logits_BTV, gpt(tokens()).logits_BTV)
    assert torch.equal(values(gpt, EMBEDDING), before)


def test_only_redrawn_embeddings_are_drawn_again() -> None:
    for state in (Embeddings.LEARNED, Embeddings.FROZEN):
        gpt = model(state)
        before = values(gpt, EMBEDDING)
        gpt.begin_step(5)
        assert torch.equal(values(gpt, EMBEDDING), before)
