import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from bench import peers
from bench.common import Skipped
from bench.peer_layers import CPU_PEERS, SLOTS, Peer, Shape, soft_moe, top_k
from bench.peer_transformers import TRANSFORMERS
from bench.peers import compare, comparisons, side_of
from bench.sides import Setting, mixture
from moe_study.design.config import DataConfig, RunConfig, RunSettings, TokenizerConfig
from moe_study.design.routing import Gate, Routing, Selection
from moe_study.design.validation import validate

SETTING = Setting(width=32, dense_hidden=64, sequences=2, length=32)
SHAPE = Shape(8, 2, 32)


class Slow(nn.Module):
    """An identity that waits."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.seconds, self.weight = seconds, nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        time.sleep(self.seconds)
        return x * self.weight, self.weight.sum()


def planted(**changes: object) -> Peer:
    """A peer that every machine has installed."""
    peer = Peer(
        "torch", "planted", lambda *_: Slow(), lambda *_: Slow(), lambda s: top_k(Gate.SOFTMAX_THEN_PICK, s), ((8, 2),)
    )
    return replace(peer, **changes)  # type: ignore[arg-type]


def test_the_ratio_is_of_what_each_layer_costs_over_its_own_dense_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"our dense": [1.0, 2.0], "ours": [1.5, 3.0], "their dense": [2.0, 2.0], "theirs": [6.0, 6.0]}
    monkeypatch.setattr(peers, "take_turns", lambda sides, rounds, device: {name: seconds[name] for name in sides})
    row = compare(planted(), SHAPE, 2, SETTING)
    assert row["median"] == 0.5
    assert row["ours_over_dense"]["median"] == 1.5 and row["theirs_over_dense"]["median"] == 3.0


def test_a_peer_that_is_not_installed_is_skipped() -> None:
    with pytest.raises(Skipped, match="no-such-package is not installed"):
        compare(planted(package="no-such-package"), SHAPE, 1, SETTING)


def test_a_peer_that_fails_is_skipped_with_its_own_words() -> None:
    def fail(*_: object) -> nn.Module:
        raise TypeError("wants another torch\nand more")

    with pytest.raises(Skipped, match=r"fails with TypeError: wants another torch$"):
        compare(planted(layer=fail), SHAPE, 1, SETTING)


def test_our_own_failure_is_no_reason_to_skip() -> None:
    def fail(shape: Shape) -> Routing:
        raise TypeError("a defect of ours")

    with pytest.raises(TypeError):
        compare(planted(ours=fail), SHAPE, 1, SETTING)


def test_row_names_tell_package_block_and_shape() -> None:
    names = comparisons(Setting())
    assert len(names) == sum(len(peer.pairs) for peer in TRANSFORMERS + CPU_PEERS)
    assert "transformers mixtral grouped_mm 64x8" in names and "st-moe-pytorch dropless 8x2" in names
    assert {shape.active for _, shape in names.values()} == {Setting.dense_hidden}
    assert "megablocks dmoe 8x2" in comparisons(Setting(device="cuda"))


def test_our_side_is_a_point_of_the_design_space_with_as_many_active_units() -> None:
    data = DataConfig(tokenizer=TokenizerConfig("gpt2"))
    for name, (peer, shape) in comparisons(Setting(device="cuda")).items():
        routing = peer.ours(shape)
        validate(RunConfig(model=Setting().model(1), routing=routing, data=data, run=RunSettings(steps=1)))
        if routing.selection is Selection.SOFT:
            assert routing.soft.slots_per_expert * shape.experts == SLOTS == Setting.length, name
        else:
            assert (routing.k + routing.shared_experts) * shape.size == shape.active, name


@pytest.fixture(params=TRANSFORMERS + CPU_PEERS, ids=lambda peer: f"{peer.package} {peer.block}")
def installed(request: pytest.FixtureRequest) -> Iterator[Peer]:
    pytest.importorskip(request.param.package.replace("-", "_"))
    yield request.param


def shape_of(peer: Peer) -> Shape:
    experts, k = peer.pairs[-1]
    return Shape(8, min(k, 2) if experts == 8 or k > 1 else k, 32)


def test_a_peers_twin_has_the_matrices_that_a_token_meets(installed: Peer) -> None:
    shape = shape_of(installed)
    layer, twin = installed.layer(shape, SETTING), installed.dense(shape, SETTING)
    gates = ("gate.", "router.", "shared_expert_gate", "slot")
    weights = {
        name: parameter.numel()
        for name, parameter in layer.named_parameters()
        if parameter.ndim >= 2 and "bias" not in name and not name.startswith(gates)
    }
    shared = sum(size for name, size in weights.items() if "shared" in name)
    routed = shape.k - installed.ours(shape).shared_experts
    active = shared + (sum(weights.values()) - shared) * routed // shape.experts
    assert active == sum(parameter.numel() for parameter in twin.parameters() if parameter.ndim >= 2)


def test_a_peers_row_is_measured(installed: Peer) -> None:
    row = compare(installed, shape_of(installed), 1, SETTING)
    assert row["low"] > 0
    assert row["their_kept_per_token"] == pytest.approx(shape_of(installed).k, rel=0.1)
    assert ("drop" in installed.block) == bool(installed.note)


def test_peers_weights_get_our_scale_and_every_one_a_gradient(installed: Peer) -> None:
    side = side_of(installed.layer(shape_of(installed), SETTING), SETTING)
    side()
    for name, parameter in side.module.named_parameters():
        assert parameter.isfinite().all(), name
        if parameter.ndim >= 2:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.3), name
        assert parameter.grad is not None, name


def test_our_soft_layer_and_theirs_have_equal_slots() -> None:
    pytest.importorskip("soft_moe_pytorch")
    shape = Shape(8, 1, 32)
    theirs = soft_moe(shape, SETTING)
    ours = mixture(next(peer for peer in CPU_PEERS if peer.block == "soft").ours(shape), SETTING)
    assert theirs.get_parameter("slot_embeds").numel() == SLOTS * SETTING.width
    assert ours.module.get_parameter("layers.0.scores.phi_SD").shape[0] == SLOTS
