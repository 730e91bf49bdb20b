"""The vision transformer: against plain numpy, what it shares with GPT, and its accounting."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from moe_study.design.accounting import flops_per_token, num_params
from moe_study.design.causality import of_task, verdict
from moe_study.design.config import DataConfig, ModelConfig, RunConfig, RunSettings
from moe_study.design.routing import (
    Capacity,
    ChoiceScope,
    Context,
    Group,
    Priority,
    RouterKind,
    Routing,
    Selection,
    Soft,
    SoftForm,
    SoftWeights,
    Unit,
)
from moe_study.design.validation import problems, validate
from moe_study.design.verdict import Verdict
from moe_study.errors import ConfigError
from moe_study.model.vit import ViT, cut

Array = NDArray[np.float64]
MODEL = ModelConfig(layers=2, heads=2, width=8, context=16, patch=7)
DENSE = Routing(selection=Selection.DENSE)
ROUTINGS = {
    "dense": DENSE,
    "soft": Routing(selection=Selection.SOFT, num_experts=4, soft=Soft(slots_per_expert=4)),
    "identity": Routing(
        selection=Selection.SOFT,
        num_experts=4,
        soft=Soft(slots_per_expert=4, dispatch=SoftWeights.IDENTITY, combine=SoftWeights.IDENTITY),
    ),
    "across images": Routing(selection=Selection.SOFT, soft=Soft(form=SoftForm.ACROSS_BATCH, group_size=2)),
    "tokens choice": Routing(k=2),
    "batch priority": Routing(capacity=Capacity(1.0, Priority.BATCH_PRIORITY, Group.BATCH)),
    "experts choice": Routing(selection=Selection.EXPERT_CHOICE),
    "merge": Routing(selection=Selection.MERGE, unit=Unit.SEQUENCE, context=Context.UNIT_MEAN),
    "by position": Routing(router=RouterKind.HASH),
}


def config_of(routing: Routing = DENSE, task: str = "images", **model: Any) -> RunConfig:
    data = DataConfig(name="digits", recipe="digits")
    run = RunSettings(steps=1, batch_size=4, eval_batch=4)
    return RunConfig(task=task, model=dataclasses.replace(MODEL, **model), routing=routing, data=data, run=run)


def random_vit(routing: Routing = DENSE, **model: Any) -> ViT:
    """In float64, with random weights of every tensor."""
    vit = ViT(dataclasses.replace(MODEL, **model), routing, classes=10).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return vit


def images(count: int = 4, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 28, 28), generator=generator, dtype=torch.uint8)


def logits(vit: ViT, images_BHW: Tensor) -> Tensor:
    logits_B1C = vit(images_BHW).logits_BTV
    assert logits_B1C is not None
    return logits_B1C.squeeze(1)


# ---- the model


def test_patches_equal_a_loop() -> None:
    images_BHW = images(2)
    patches_BTP = cut(images_BHW, 7)
    for row, column in np.ndindex(4, 4):
        square_BHW = images_BHW[:, 7 * row : 7 * row + 7, 7 * column : 7 * column + 7]
        assert torch.equal(patches_BTP[:, 4 * row + column], square_BHW.flatten(1))


def reference(w: dict[str, Array], image_HW: Array, heads: int) -> Array:
    """Logits of one image by the equations, in numpy."""
    squares = [image_HW[7 * r : 7 * r + 7, 7 * c : 7 * c + 7].flatten() / 255 for r in range(4) for c in range(4)]
    x_TD = affine(w, "patch_embedding", np.array(squares)) + w["position_embedding.weight"]
    for layer in range(2):
        at = f"blocks.{layer}"
        x_TD = x_TD + attention(w, f"{at}.attn", norm(w, f"{at}.norm_attn", x_TD), heads)
        hidden_TF = affine(w, f"{at}.ffn.up", norm(w, f"{at}.norm_ffn", x_TD))
        active_TF = hidden_TF * 0.5 * (1 + np.vectorize(math.erf)(hidden_TF / math.sqrt(2)))
        x_TD = x_TD + affine(w, f"{at}.ffn.down", active_TF)
    return affine(w, "head", norm(w, "norm", x_TD).mean(0))


def affine(w: dict[str, Array], name: str, x: Array) -> Array:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def norm(w: dict[str, Array], name: str, x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def attention(w: dict[str, Array], name: str, x_TD: Array, heads: int) -> Array:
    """Every position attends to every position."""
    q_TD, k_TD, v_TD = np.split(affine(w, f"{name}.qkv", x_TD), 3, axis=1)
    mixed = []
    for q_Td, k_Td, v_Td in zip(*(np.split(part, heads, axis=1) for part in (q_TD, k_TD, v_TD)), strict=True):
        powers_TS = np.exp(q_Td @ k_Td.T / math.sqrt(q_Td.shape[1]))
        mixed.append(powers_TS / powers_TS.sum(1, keepdims=True) @ v_Td)
    return affine(w, f"{name}.out", np.concatenate(mixed, 1))


def test_logits_equal_the_equations() -> None:
    vit, images_BHW = random_vit(), images()
    weights = {name: value.detach().numpy() for name, value in vit.named_parameters()}
    expected = [reference(weights, image.double().numpy(), heads=2) for image in images_BHW]
    torch.testing.assert_close(logits(vit, images_BHW), torch.from_numpy(np.stack(expected)))


def test_loss_is_the_mean_over_images_and_ignores_those_without_a_class() -> None:
    vit, images_BHW = random_vit(), images()
    targets_B1 = torch.tensor([[3], [-1], [0], [9]])
    output = vit(images_BHW, targets_B1, per_token=True)
    log_p_BC = logits(vit, images_BHW).log_softmax(1)
    expected_B = -torch.stack([log_p_BC[0, 3], torch.zeros(()), log_p_BC[2, 0], log_p_BC[3, 9]])
    torch.testing.assert_close(output.token_loss_BT.squeeze(1), expected_B.detach())
    torch.testing.assert_close(output.loss, expected_B.sum() / 3)
    right_B = log_p_BC.argmax(1)
    assert vit(images_BHW, right_B.unsqueeze(1), per_token=True).correct_BT.all()
    assert not vit(images_BHW, (right_B.unsqueeze(1) + 1) % 10, per_token=True).correct_BT.any()


@pytest.mark.parametrize("name", ROUTINGS)
def test_every_routing_trains(name: str) -> None:
    config = config_of(ROUTINGS[name])
    validate(config)
    vit = ViT(config.model, config.routing, classes=10)
    vit.begin_step(0)
    output = vit(images(), torch.tensor([[1], [2], [3], [4]]), detail=True)
    (output.loss + output.aux_loss).backward()
    vit.end_step()
    assert len(output.stats) == (0 if name == "dense" else 2)
    for key, parameter in vit.named_parameters():
        if parameter.requires_grad and "experts" not in key and "router" not in key:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), key


def test_only_mixing_routings_see_other_images() -> None:
    """What is declared: an image has no later and earlier, so only other images count."""
    context = random_vit(Routing()).position_embedding.num_embeddings
    for name, routing in ROUTINGS.items():
        vit, images_BHW = random_vit(routing), images()
        changed_BHW = torch.cat((images_BHW[:1], images(seed=2)[1:]))
        moved = (logits(vit, changed_BHW)[0] - logits(vit, images_BHW)[0]).abs().max() > 1e-9
        assert of_task(verdict(routing, context), "images") == Verdict(mixes_batch=bool(moved)), name
    position = Routing(selection=Selection.EXPERT_CHOICE, choice_scope=ChoiceScope.SEQUENCE)
    assert of_task(verdict(position, context), "images") == Verdict() != of_task(verdict(position, context), "language")


def test_attention_starts_equal_in_runs_that_differ_in_routing_and_the_first_expert_is_the_dense_network() -> None:
    dense, soft = (dict(ViT(MODEL, ROUTINGS[name], 10, seed=3).named_parameters()) for name in ("dense", "soft"))
    shared = [name for name in dense if ".ffn." not in name]
    assert len(shared) > 10 and all(torch.equal(dense[name], soft[name]) for name in shared)
    assert torch.equal(soft["blocks.1.ffn.experts.up_EDF"][0], dense["blocks.1.ffn.up.weight"].T)


def test_weights_start_as_those_of_a_language_model_of_that_width_do() -> None:
    for init_std in (None, 0.3):
        model = dataclasses.replace(MODEL, width=64, init_std=init_std)
        for name in ("patch_embedding.weight", "position_embedding.weight", "blocks.0.attn.qkv.weight", "head.weight"):
            weight = ViT(model, DENSE, 10).get_parameter(name)
            tolerance = 4 / math.sqrt(2 * weight.numel())  # four standard errors
            assert weight.std().item() == pytest.approx(model.weight_std, rel=tolerance), name


# ---- accounting and validation


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ["dense", "soft", "tokens choice", "merge"])
def test_parameters_and_flops_are_those_of_the_built_model(name: str, bias: bool) -> None:
    config = config_of(ROUTINGS[name], bias=bias)
    vit = random_vit(config.routing, bias=bias)
    assert vit.num_parameters() == num_params(config)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        vit(images())
    assert counter.get_total_flops() / (4 * 16) == pytest.approx(flops_per_token(config), rel=1e-12)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (config_of(task="sound"), "task=sound is unknown"),
        (config_of(task="language"), "model.patch=7 cuts images up"),
        (config_of(task="language", patch=None), "data.recipe=digits holds images"),
        (config_of(patch=None), "needs a model.patch that divides the 28 pixels"),
        (config_of(patch=5), "needs a model.patch that divides the 28 pixels"),
        (config_of(context=15), "model.context must be the 16 patches of an image, not 15"),
        (config_of(document_attention=True), "model.document_attention has no meaning"),
        (config_of(vocab_size=12), "model.vocab_size has no meaning"),
        (
            config_of(Routing(unit=Unit.SEQUENCE, context=Context.LABEL, router=RouterKind.LABEL)),
            "the class that the model shall find",
        ),
        (dataclasses.replace(config_of(), data=DataConfig()), "data.recipe=parliament_news holds text"),
    ],
)
def test_configurations_without_meaning_are_refused(config: RunConfig, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        validate(config)


def test_the_task_is_part_of_a_run_s_identity() -> None:
    assert list(problems(config_of())) == []
    assert config_of().key != config_of(task="language").key
