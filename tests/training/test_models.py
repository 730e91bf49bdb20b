"""The built model runs its experts through the implementation that run.dispatch names."""

import dataclasses

import pytest
import torch

from moe_study.design.config import ModelConfig, RunConfig
from moe_study.design.routing import Routing, Selection
from moe_study.model.moe.experts import dispatch
from moe_study.training.models import build_model
from tests.design.points import toy

PATCHES = ModelConfig(layers=1, heads=2, width=8, context=4, ffn_size=12, patch=14)


def language(routing: Routing) -> RunConfig:
    return toy(routing)


def images(routing: Routing) -> RunConfig:
    config = dataclasses.replace(toy(routing), task="images", model=PATCHES)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, recipe="digits"))


@pytest.mark.parametrize("make", [language, images])
@pytest.mark.parametrize("routing", [Routing(), Routing(selection=Selection.SOFT)], ids=["discrete", "soft"])
def test_dispatch_is_the_one_that_is_asked_for(make, routing, monkeypatch):
    ran = []
    for name in ("chunked_ffn", "grouped_ffn"):
        function = getattr(dispatch, name)

        def recorded(*inputs, name=name, function=function):
            ran.append(name)
            return function(*inputs)

        monkeypatch.setattr(dispatch, name, recorded)
    config = make(routing)
    inputs = torch.zeros(2, 28, 28, dtype=torch.uint8) if config.task == "images" else torch.zeros(2, 8).long()
    for choice, expected in (("grouped", "grouped_ffn"), ("auto", "chunked_ffn")):
        ran.clear()
        build_model(dataclasses.replace(config, run=dataclasses.replace(config.run, dispatch=choice)), None)(inputs)
        assert set(ran) == {expected}
