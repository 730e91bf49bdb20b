"""Dense models as plain GPT-2s: the class of transformers itself computes our logits."""

import dataclasses
from types import ModuleType

import pytest
import torch

from moe_study.design.config import Embeddings
from moe_study.sweeps.compose import Composer
from tests.hf.models import END, lengths_of, small_config, small_model, texts

pytestmark = pytest.mark.long
CHANGES: list[dict[str, object]] = [
    {},
    {"ffn_size": 20},
    {"layers": 3},
    {"vocab_size": 70, "dropout": 0.1},
    {"tied_head": False, "embeddings": Embeddings.FROZEN},
]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_a_dense_model_is_a_gpt2(bias: bool, changes: dict[str, object], hf: ModuleType, composer: Composer) -> None:
    config = small_config(composer, "dense", bias=bias, **changes)
    routing = dataclasses.replace(config.routing, expert_size=None, ffn_multiplier=2.0)
    config = dataclasses.replace(config, routing=routing)
    gpt = small_model(config, steps=3)
    assert hf.fits_gpt2(config)
    model = hf.as_gpt2(gpt, config, END)
    assert type(model).__name__ == "GPT2LMHeadModel"
    assert sum(parameter.numel() for parameter in model.parameters()) >= gpt.num_parameters()
    for length in lengths_of(config):
        tokens_BT = texts(config, length=length)
        with torch.no_grad():
            expected, found = gpt(tokens_BT).logits_BTV, model(tokens_BT).logits
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_what_gpt2_cannot_say_is_not_taken_for_one(hf: ModuleType, composer: Composer) -> None:
    assert not hf.fits_gpt2(small_config(composer, "dense_split"))
    assert not hf.fits_gpt2(small_config(composer, "dense", document_attention=True))
