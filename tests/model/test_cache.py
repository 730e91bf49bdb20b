"""A model that goes on with texts gives what one pass over all of them gives, whatever its routing needs to know."""

import dataclasses

import pytest
import torch
from hypothesis import assume, given, settings
from torch import Tensor

from moe_study.design.causality import why_it_cannot_go_on
from moe_study.design.config import ModelConfig, RunConfig
from moe_study.design.routing import Routing
from moe_study.design.validation import validate
from moe_study.errors import ConfigError
from moe_study.model.cache import Cache
from moe_study.model.gpt import GPT
from tests.audit.table import ROWS
from tests.part import every
from tests.points import examples, points

CONTEXT, VOCABULARY, END = 40, 13, 3  # segments and prefixes of the table have 16 tokens
SMALL = ModelConfig(layers=3, heads=2, width=8, context=CONTEXT, ffn_size=12)
LABEL_B = torch.tensor([0, 1, 2])


CAUSAL = {name: routing for name, (routing, _) in ROWS.items() if not why_it_cannot_go_on(routing, CONTEXT)}


def model_of(routing: Routing, model: ModelConfig = SMALL, vocabulary: int = VOCABULARY) -> GPT:
    """In float64, where rounding decides no choice of experts, with weights that are large enough to matter."""
    sharp = dataclasses.replace(model, init_std=0.5, dropout=0.1)
    return GPT(sharp, routing, vocabulary, seed=1, end_of_text=END).double().eval()


def texts(rows: int = 3, length: int = CONTEXT, vocabulary: int = VOCABULARY) -> Tensor:
    return torch.randint(vocabulary, (rows, length), generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def logits_of(gpt: GPT, tokens_BT: Tensor, cache: Cache | None = None, label_B: Tensor = LABEL_B) -> Tensor:
    logits_BTV = gpt(tokens_BT, label_B=label_B, cache=cache).logits_BTV
    assert logits_BTV is not None
    return logits_BTV


def in_pieces(gpt: GPT, tokens_BT: Tensor, lengths: list[int], cache: Cache | None = None) -> Tensor:
    """Logits of the whole texts, read in pieces of these lengths."""
    cache = cache or Cache(gpt.context)
    return torch.cat([logits_of(gpt, piece, cache) for piece in tokens_BT.split(lengths, 1)], 1)


@pytest.mark.parametrize("name", every(2, CAUSAL))
def test_texts_of_different_lengths_are_gone_on_with_token_by_token(name: str) -> None:
    check_token_by_token(model_of(CAUSAL[name]))


@pytest.mark.parametrize("name", ["dense", "sequence by its prefix", "capacity, K=2, token by token"])
def test_documents_that_do_not_see_one_another_are_gone_on_with(name: str) -> None:
    check_token_by_token(model_of(CAUSAL[name], dataclasses.replace(SMALL, document_attention=True)))


def check_token_by_token(gpt: GPT) -> None:
    tokens_BT, first_B = texts(), torch.tensor([20, 3, 1])  # beyond the segment or prefix, within it, and one token
    whole_BTV = logits_of(gpt, tokens_BT)
    padded_BT = tokens_BT[:, :20].clone()
    padded_BT[1, 3:], padded_BT[2, 1:] = END, 7
    cache = Cache(CONTEXT, first_B)
    begun_BTV = logits_of(gpt, padded_BT, cache)
    for row, length in enumerate(first_B):
        torch.testing.assert_close(begun_BTV[row, :length], whole_BTV[row, :length])
    position_B = first_B.clone()
    while cache.seen < CONTEXT:
        next_BV = logits_of(gpt, tokens_BT.gather(1, position_B.unsqueeze(1)), cache)[:, 0]
        torch.testing.assert_close(next_BV, whole_BTV[torch.arange(3), position_B])
        position_B += 1


def check_pieces(config: RunConfig) -> None:
    context = config.model.context
    gpt = model_of(config.routing, config.model, config.vocab_size)
    tokens_BT = texts(length=context, vocabulary=config.vocab_size)
    lengths = [2, 1, 1, 3, context - 7]
    torch.testing.assert_close(in_pieces(gpt, tokens_BT, lengths), logits_of(gpt, tokens_BT))


@settings(max_examples=examples(25), deadline=None)
@given(points())
def test_any_causal_point_goes_on_in_pieces_of_any_length(config: RunConfig) -> None:
    try:
        validate(config)
    except ConfigError:
        assume(False)
    assume(not why_it_cannot_go_on(config.routing, config.model.context))
    check_pieces(config)


def test_a_beginning_is_read_bit_for_bit_as_without_a_cache() -> None:
    gpt = model_of(CAUSAL["sequence by its prefix"]).float()
    assert torch.equal(logits_of(gpt, texts(), Cache(CONTEXT)), logits_of(gpt, texts()))


def test_what_leaks_is_not_gone_on_with_exactly() -> None:
    """The comparison of these tests can fail: the mean of a sequence changes with every token."""
    routing, _ = ROWS["sequence mean"]
    gpt = model_of(routing)
    assert not torch.allclose(in_pieces(gpt, texts(), [20, 20]), logits_of(gpt, texts()))


@pytest.mark.parametrize("name", ["token choice, dropless", "merged by the running mean"])
def test_rows_can_be_chosen_anew(name: str) -> None:
    """As beams are: two go on from one beginning, and one is given up."""
    gpt, tokens_BT = model_of(CAUSAL[name]), texts()
    tokens_BT[1, :10] = tokens_BT[0, :10]
    cache = Cache(CONTEXT)
    logits_of(gpt, torch.stack([tokens_BT[2, :10], tokens_BT[0, :10], tokens_BT[1, :10]]), cache)
    cache.choose(torch.tensor([1, 1, 0]))
    rest_BTV = logits_of(gpt, tokens_BT[:, 10:], cache)
    torch.testing.assert_close(rest_BTV, logits_of(gpt, tokens_BT)[:, 10:])


def test_the_last_tokens_can_be_forgotten() -> None:
    gpt, tokens_BT = model_of(CAUSAL["previous segment, learned prior"]), texts()
    cache = Cache(CONTEXT)
    logits_of(gpt, tokens_BT.flip(1)[:, :1], Cache(CONTEXT))
    guessed_BT = torch.cat([tokens_BT[:, :20], (tokens_BT[:, 20:25] + 1) % VOCABULARY], 1)
    logits_of(gpt, guessed_BT, cache)
    cache.forget(5)
    torch.testing.assert_close(logits_of(gpt, tokens_BT[:, 20:], cache), logits_of(gpt, tokens_BT)[:, 20:])


def test_pairs_of_new_tokens_and_experts_are_counted() -> None:
    """Two of every token's own, however many tokens there were before."""
    gpt, cache = model_of(ROWS["capacity, K=2, token by token"][0]), Cache(CONTEXT)
    logits_of(gpt, texts(length=5), cache)
    stats = gpt(texts(length=4), cache=cache).stats
    assert len(stats) == 3 and all(int(layer.wanted) == 3 * 4 * 2 and layer.tokens == 3 * 4 for layer in stats)


def test_routes_are_not_asked_of_a_cache() -> None:
    with pytest.raises(ValueError, match="leave out the cache"):
        model_of(CAUSAL["dense"])(texts(), routes=True, cache=Cache(CONTEXT))


def test_more_than_the_context_is_refused() -> None:
    gpt, cache = model_of(CAUSAL["dense"]), Cache(CONTEXT)
    logits_of(gpt, texts(), cache)
    with pytest.raises(ValueError, match="40 and 1 new tokens do not fit a context of 40"):
        logits_of(gpt, texts(length=1), cache)
