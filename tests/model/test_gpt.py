"""The language model: against a reference in plain loops, and what it may and may not look at."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from moe_study.design.accounting import num_params
from moe_study.design.config import ModelConfig, RunConfig
from moe_study.design.routing import (
    Balance,
    Capacity,
    Choices,
    Context,
    Priority,
    Routing,
    Selection,
    Soft,
    SoftForm,
    Unit,
)
from moe_study.errors import ConfigError
from moe_study.model.gpt import GPT, document_layout
from tests.model import reference

DENSE = Routing(selection=Selection.DENSE)
SMALL = ModelConfig(layers=2, heads=2, width=8, context=12)
VOCABULARY = 11
END = 3  # end of text


def tokens(rows: int = 2, length: int = 12, seed: int = 0) -> Tensor:
    return torch.randint(VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


def float64_model(model: ModelConfig = SMALL, **kwargs: int) -> GPT:
    """A model whose weights are all large enough to matter, biases and LayerNorm included."""
    gpt = GPT(model, DENSE, VOCABULARY, **kwargs).double().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in gpt.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return gpt


def logits_of(gpt: GPT, tokens_BT: Tensor) -> Tensor:
    logits_BTV = gpt(tokens_BT, return_logits=True).logits_BTV
    assert logits_BTV is not None
    return logits_BTV.detach()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("document_attention", [False, True])
def test_logits_equal_a_reference_in_plain_loops(bias: bool, document_attention: bool) -> None:
    model = dataclasses.replace(SMALL, bias=bias, document_attention=document_attention)
    gpt = float64_model(model, end_of_text=END)
    tokens_BT = tokens()
    tokens_BT[0, 4], tokens_BT[0, 5], tokens_BT[1, 0] = END, END, END
    weights = {name: parameter.detach().numpy() for name, parameter in gpt.named_parameters()}
    end = END if document_attention else None
    expected = [reference.logits(weights, row, SMALL.layers, SMALL.heads, end) for row in tokens_BT.tolist()]
    np.testing.assert_allclose(logits_of(gpt, tokens_BT).numpy(), np.array(expected), rtol=0, atol=1e-11)


@pytest.mark.parametrize("document_attention", [False, True])
@pytest.mark.parametrize("t", [0, 5, 10])
def test_logits_do_not_see_later_tokens(t: int, document_attention: bool) -> None:
    gpt = float64_model(dataclasses.replace(SMALL, document_attention=document_attention), end_of_text=END)
    before_BT = tokens()
    after_BT = before_BT.clone()
    after_BT[:, t + 1 :] = (before_BT[:, t + 1 :] + 1) % VOCABULARY
    before, after = logits_of(gpt, before_BT), logits_of(gpt, after_BT)
    assert torch.equal(before[:, : t + 1], after[:, : t + 1])
    assert not torch.isclose(before[:, t + 1 :], after[:, t + 1 :]).all(-1).any()  # the test can see a change


def test_a_document_does_not_depend_on_what_precedes_it() -> None:
    gpt = float64_model(dataclasses.replace(SMALL, document_attention=True), end_of_text=END)
    document_BT = torch.tensor([[7, 1, 2, 9]])
    alone = logits_of(gpt, document_BT)
    for preceding in ([5, END], [END], [1, 2, 0, 4, 10, END]):
        window_BT = torch.cat([torch.tensor([preceding]), document_BT], 1)
        torch.testing.assert_close(logits_of(gpt, window_BT)[:, -4:], alone, rtol=0, atol=1e-12)


def test_without_document_attention_earlier_documents_are_seen() -> None:
    gpt = float64_model()
    one, other = torch.tensor([[5, END, 7, 1]]), torch.tensor([[6, END, 7, 1]])
    assert not torch.allclose(logits_of(gpt, one)[:, -1], logits_of(gpt, other)[:, -1])


def test_end_of_text_belongs_to_the_document_it_ends() -> None:
    positions_BT, mask_B1TS = document_layout(torch.tensor([[1, 1, END, 1, END, END, 1]]), END)
    assert positions_BT.tolist() == [[0, 1, 2, 0, 1, 0, 0]]
    documents = [0, 0, 0, 1, 1, 2, 3]
    expected = [[documents[s] == documents[t] and s <= t for s in range(7)] for t in range(7)]
    assert mask_B1TS.tolist() == [[expected]]


def test_document_attention_needs_the_end_of_text_token() -> None:
    with pytest.raises(ConfigError, match="end-of-text"):
        GPT(dataclasses.replace(SMALL, document_attention=True), DENSE, VOCABULARY)


def test_loss_is_the_mean_log_probability_of_the_targets_alone() -> None:
    gpt = float64_model()
    targets_BT = tokens(seed=2)
    targets_BT[0, 3:7] = -1
    with torch.no_grad():
        output = gpt(tokens(), targets_BT, per_token=True)
        probability_BTV = logits_of(gpt, tokens()).softmax(-1)
    assert output.token_loss_BT is not None and output.loss is not None
    picked_BT = probability_BTV.gather(2, targets_BT.clamp(min=0).unsqueeze(2)).squeeze(2)
    kept_BT = targets_BT >= 0
    torch.testing.assert_close(torch.exp(-output.token_loss_BT)[kept_BT], picked_BT[kept_BT])
    assert (output.token_loss_BT[~kept_BT] == 0).all()
    torch.testing.assert_close(output.loss, -picked_BT[kept_BT].log().mean())
    assert output.aux_loss == 0 and output.aux == {} and output.stats == [] and output.logits_BTV is None


def test_loss_is_the_same_whether_or_not_logits_are_asked_for() -> None:
    gpt, targets_BT = float64_model(), tokens(seed=2)
    gradients = []
    for return_logits in (False, True):
        loss = gpt(tokens(), targets_BT, return_logits=return_logits).loss
        gradients.append(torch.autograd.grad(loss, list(gpt.parameters())))
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize(("width", "init_std", "variance"), [(96, 0.02, 0.038), (48, None, 0.307), (192, None, 0.307)])
def test_untrained_model_is_near_the_uniform_loss(width: int, init_std: float | None, variance: float) -> None:
    """Logits start as N(0, width * init_std^2), which costs half of their variance over guessing."""
    gpt = GPT(ModelConfig(width=width, init_std=init_std), DENSE, 512)
    generator = torch.Generator().manual_seed(0)
    inputs_BT, targets_BT = (torch.randint(512, (4, 128), generator=generator) for _ in range(2))
    assert gpt(inputs_BT, targets_BT).loss.item() == pytest.approx(np.log(512) + variance / 2, abs=0.1)


def test_a_few_steps_of_training_lower_the_loss() -> None:
    gpt = GPT(SMALL, DENSE, VOCABULARY)
    optimizer = torch.optim.AdamW(gpt.parameters(), lr=1e-2)
    losses = []
    for _ in range(100):
        loss = gpt(tokens(), tokens(seed=1)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_too_long_a_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="13 tokens do not fit"):
        GPT(SMALL, DENSE, VOCABULARY)(tokens(length=13))


def test_shorter_sequences_are_prefixes() -> None:
    gpt = float64_model()
    torch.testing.assert_close(logits_of(gpt, tokens()[:, :5]), logits_of(gpt, tokens())[:, :5])


def test_dropout_acts_in_training_only() -> None:
    gpt = GPT(dataclasses.replace(SMALL, dropout=0.5), DENSE, VOCABULARY)
    assert not torch.equal(logits_of(gpt, tokens()), logits_of(gpt, tokens()))
    gpt.eval()
    assert torch.equal(logits_of(gpt, tokens()), logits_of(gpt, tokens()))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("ffn_multiplier", [1.0, 2.0])
def test_parameters_are_those_of_the_accounting_tied_weights_once(bias: bool, ffn_multiplier: float) -> None:
    model = dataclasses.replace(SMALL, bias=bias, vocab_size=VOCABULARY)
    routing = Routing(selection=Selection.DENSE, ffn_multiplier=ffn_multiplier)
    gpt = GPT(model, routing, VOCABULARY)
    assert gpt.num_parameters() == num_params(RunConfig(model=model, routing=routing))
    assert sum(parameter.shape == (VOCABULARY, 8) for parameter in gpt.parameters()) == 1


def test_gpt2_small_has_its_published_size_without_using_memory() -> None:
    with torch.device("meta"):
        gpt = GPT(ModelConfig(layers=12, heads=12, width=768, context=1024), DENSE, 50257)
    assert gpt.num_parameters() == 124_439_808


def test_weights_decay_and_biases_and_norms_do_not() -> None:
    gpt = GPT(SMALL, DENSE, VOCABULARY)
    gpt.get_parameter("blocks.0.attn.qkv.weight").requires_grad_(False)
    decay, no_decay = gpt.decay_groups()
    names = {id(parameter): name for name, parameter in gpt.named_parameters()}
    assert {names[id(p)].split(".")[-2] for p in no_decay} == {
        "norm", "norm_attn", "norm_ffn", "qkv", "out", "up", "down"
    }  # fmt: skip
    assert all(p.ndim == 1 for p in no_decay)
    assert {names[id(p)].split(".")[-2] for p in decay if "blocks.0" in names[id(p)]} == {"out", "up", "down"}
    assert len(decay) + len(no_decay) == len(names) - 1


@pytest.mark.parametrize("document_attention", [False, True])
@pytest.mark.long
def test_compiles_into_one_graph(document_attention: bool) -> None:
    model = dataclasses.replace(SMALL, document_attention=document_attention)
    gpt = GPT(model, DENSE, VOCABULARY, end_of_text=END)
    compiled = torch.compile(gpt, backend="aot_eager", fullgraph=True)
    output = compiled(tokens(), tokens(seed=1))
    output.loss.backward()
    expected = gpt(tokens(), tokens(seed=1)).loss
    torch.testing.assert_close(output.loss, expected)


MIXTURES = {
    "token": Routing(k=2, balance=Balance(switch=0.01)),
    "first choices beside a bias": Routing(
        k=2, balance=Balance(switch=0.01, bias_rate=0.01, scope="batch", choices=Choices.FIRST)
    ),
    "sequence": Routing(k=2, unit=Unit.SEQUENCE, context=Context.UNIT_MEAN, balance=Balance(switch=0.01)),
    "capacity": Routing(k=2, capacity=Capacity(factor=1.0, priority=Priority.BATCH_PRIORITY)),
    "threshold": Routing(selection=Selection.THRESHOLD, threshold=0.4, capacity=Capacity(factor=2.0)),
    "expert choice": Routing(selection=Selection.EXPERT_CHOICE, k=2),
    "soft": Routing(selection=Selection.SOFT, soft=Soft(form=SoftForm.CHUNK_LAGGED, chunk_length=2)),
}


@pytest.mark.long
@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_in_bfloat16_compiles_into_one_graph(name: str) -> None:
    gpt = GPT(SMALL, MIXTURES[name], VOCABULARY)
    torch.compiler.reset()
    compiled = torch.compile(gpt, backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu", torch.bfloat16):
        output, expected = compiled(tokens(), tokens(seed=1)), gpt(tokens(), tokens(seed=1))
    (output.loss + output.aux_loss).backward()
    torch.testing.assert_close(output.loss, expected.loss, rtol=1e-3, atol=0)
    assert all(parameter.grad is not None for parameter in gpt.parameters())


@pytest.mark.long
@pytest.mark.parametrize("dispatch", ["auto", "grouped"])
def test_a_mixture_in_float32_compiles_around_its_experts_with_the_same_bits(dispatch: str) -> None:
    """The graph ends at the chunked experts, which the compiler is kept from; grouped products are operators in it."""
    gpt = GPT(dataclasses.replace(SMALL, width=16), MIXTURES["token"], VOCABULARY, dispatch=dispatch)
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(gpt, backend="eager")
    gradients = []
    for model in (gpt, compiled):
        output = model(tokens(), tokens(seed=1))
        gradients.append(torch.autograd.grad(output.loss + output.aux_loss, list(gpt.parameters())))
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
    counted = torch._dynamo.utils.counters["graph_break"]
    assert any("uncompiled" in reason or "disable" in reason for reason in counted) == (dispatch == "auto"), counted


def test_bfloat16_autocast_stays_near_float32() -> None:
    gpt = GPT(ModelConfig(), DENSE, 512)
    inputs_BT = torch.randint(512, (2, 128), generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        output = gpt(inputs_BT, inputs_BT)
    assert output.loss.dtype == torch.float32
    torch.testing.assert_close(output.loss, gpt(inputs_BT, inputs_BT).loss, rtol=2e-3, atol=0)
    gradients = torch.autograd.grad(output.loss, list(gpt.parameters()))
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in gradients)
