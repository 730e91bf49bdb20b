import copy
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from moe_study.design.config import Embeddings
from moe_study.design.plain import from_plain
from moe_study.design.routing import Routing
from moe_study.training import checkpoint
from moe_study.training.loop import Trainer, clip_gradients, random_seed
from moe_study.training.models import build_model
from tests.training.doubles import Batch, TinyModel, TinySampler, tiny_config

CPU = torch.device("cpu")


def make_trainer(config, *, ignore=0.0, model=None, **model_settings):
    model = model or TinyModel(config.run.seed, config.model.dropout, **model_settings)
    return Trainer(config, model, TinySampler(config.run.batch_size, config.run.seed, ignore), CPU)


def parameters(trainer):
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}


@pytest.mark.parametrize("micro_batch", [1, 2, 4])  # 4 does not divide the batch of 6
def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path, micro_batch):
    """With targets left out here and there, so that micro-batches have unequal numbers of them."""
    quiet = {"noise": 0.0, "aux_weight": 0.0}  # a product of batch means is no mean of products
    whole = make_trainer(tiny_config(tmp_path, dropout=0.0), ignore=0.4, **quiet)
    parts = make_trainer(tiny_config(tmp_path, dropout=0.0, micro_batch=micro_batch), ignore=0.4, **quiet)
    for _ in range(5):
        whole.train_step()
        parts.train_step()
    for name, value in parameters(whole).items():
        torch.testing.assert_close(parameters(parts)[name], value, rtol=1e-4, atol=1e-6)
    assert parts.losses.read()["loss"] == pytest.approx(whole.losses.read()["loss"], rel=1e-6)


def test_balancing_terms_weigh_the_same_however_the_batch_is_cut(tmp_path):
    """A term that is the same in every micro-batch must enter the gradient exactly once."""

    class Constant(TinyModel):
        def forward(self, *arguments, **settings):
            output = super().forward(*arguments, **settings)
            output.aux_loss = (self.router**2).sum()
            output.aux = {"router": output.aux_loss.detach()}
            return output

    def run(micro_batch):
        config = tiny_config(tmp_path, dropout=0.0, micro_batch=micro_batch, optimizer={"grad_clip": 0.0})
        trainer = make_trainer(config, model=Constant(dropout=0.0, noise=0.0))
        trainer.optimizer = torch.optim.SGD(trainer.model.parameters())  # Adam would hide a factor
        trainer.train_step()
        return trainer

    whole, parts = run(None), run(4)
    torch.testing.assert_close(parts.model.router, whole.model.router, rtol=1e-5, atol=1e-7)
    assert parts.losses.read()["aux"] == pytest.approx(whole.losses.read()["aux"], rel=1e-6)


def test_the_reported_loss_holds_no_balancing_term(tmp_path):
    light = make_trainer(tiny_config(tmp_path), aux_weight=0.0)
    heavy = make_trainer(tiny_config(tmp_path), aux_weight=1000.0)
    light.train_step()
    heavy.train_step()
    one, other = light.losses.read(), heavy.losses.read()
    assert one["loss"] == other["loss"]
    assert one["aux"] == other["aux"]  # unweighted
    assert not torch.equal(light.model.router, heavy.model.router)


def test_a_step_depends_on_seed_step_and_state_alone(tmp_path):
    """Random numbers drawn by anybody between two steps change nothing, dropout and router noise included."""
    calm, disturbed = (make_trainer(tiny_config(tmp_path, micro_batch=2)) for _ in range(2))
    for _ in range(4):
        calm.train_step()
        torch.manual_seed(np.random.default_rng().integers(2**31))
        disturbed.train_step()
    assert all(torch.equal(value, parameters(disturbed)[name]) for name, value in parameters(calm).items())


def test_neighbouring_steps_and_seeds_share_no_random_numbers():
    places = [(seed, step) for seed in range(20) for step in range(200)]
    seeds = {random_seed(*place) for place in places}
    assert len(seeds) == len(places)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_dropout_and_noise_differ_between_micro_batches(tmp_path):
    """The same sequences twice in one step, as two micro-batches."""
    seen = []

    class Watching(TinyModel):
        def forward(self, *arguments, **settings):
            output = super().forward(*arguments, **settings)
            seen.append(float(output.loss.detach()))
            return output

    trainer = make_trainer(tiny_config(tmp_path, micro_batch=3), model=Watching())
    batch = TinySampler(3, 0).batch(0)
    twice = {name: np.concatenate([getattr(batch, name)] * 2) for name in Batch.__dataclass_fields__}
    trainer.sampler = SimpleNamespace(batch=lambda step: Batch(**twice))
    trainer.train_step()
    assert len(set(seen)) == 2


def test_a_state_taken_between_two_records_goes_on_to_the_last_bit(tmp_path):
    config = tiny_config(tmp_path, micro_batch=4)
    straight = make_trainer(config)
    for _ in range(4):
        straight.train_step()
    state = copy.deepcopy(straight.state_dict())
    torch.manual_seed(123)
    resumed = make_trainer(config)
    resumed.load_state_dict(state)
    for trainer in (straight, resumed):
        for _ in range(3):
            trainer.train_step()
    assert resumed.step == straight.step == 7
    for name, value in straight.model.state_dict().items():  # buffers that change outside the gradient too
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert resumed.losses.read() == straight.losses.read()
    assert resumed.routing.read() == straight.routing.read()


def test_training_learns(tmp_path):
    trainer = make_trainer(tiny_config(tmp_path, steps=150, dropout=0.0))
    losses = []
    for _ in range(150):
        trainer.train_step()
        losses.append(trainer.losses.read()["loss"])
    assert np.mean(losses[-10:]) < 0.7 * losses[0]


def test_clipping_bounds_the_joint_norm_and_reports_the_norm_before():
    model = TinyModel()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    count = sum(p.numel() for p in model.parameters())
    assert float(clip_gradients(model, 0.0)) == pytest.approx(2.0 * count**0.5)
    assert float(model.router.grad[0, 0]) == 2.0
    assert float(clip_gradients(model, 0.5)) == pytest.approx(2.0 * count**0.5)
    assert sum(float(p.grad.pow(2).sum()) for p in model.parameters()) ** 0.5 == pytest.approx(0.5, rel=1e-4)


def test_the_label_that_the_routing_asks_for_reaches_the_model(tmp_path):
    seen = []

    class Watching(TinyModel):
        def forward(self, *arguments, label_B=None, **settings):
            seen.append(label_B.tolist())
            return super().forward(*arguments, label_B=label_B, **settings)

    config = tiny_config(tmp_path)
    for label in ("language", "topic"):
        routing = dataclasses.replace(config.routing, label=label)
        make_trainer(dataclasses.replace(config, routing=routing), model=Watching()).train_step()
    batch = TinySampler(config.run.batch_size, config.run.seed).batch(0)
    assert seen == [batch.language_B.tolist(), batch.topic_B.tolist()]


STATEFUL = {
    "redrawn by sequence, followed by all layers": {
        "unit": "sequence", "context": "unit_mean", "router_state": "redrawn", "scope": "global", "k": 2,
    },
    "loss-free bias over the batch": {"k": 2, "balance": {"bias_rate": 0.01, "scope": "batch"}},
    "threshold steered to a budget": {"selection": "threshold", "threshold_budget": 1.5, "balance": {"switch": 0.01}},
    "expert choice over a moving cutoff": {"selection": "expert_choice", "choice_scope": "cutoff"},
    "shuffled decisions": {"shuffle": True, "k": 2},
    "capacity with dropped tokens": {"k": 2, "capacity": {"factor": 1.0, "priority": "rank_probability"}},
    "loss on first choices beside a bias": {
        "k": 2, "balance": {"switch": 0.05, "bias_rate": 0.01, "scope": "batch", "choices": "first"},
    },
    **{f"{state} embeddings": {"k": 2} for state in Embeddings},
}  # fmt: skip


@pytest.mark.parametrize("kind", STATEFUL)
def test_every_kind_of_state_goes_on_to_the_last_bit_after_a_reload(tmp_path, kind):
    """On the real model, through a file, as after a kill."""
    routing, sizes = STATEFUL[kind], {"layers": 2}
    if kind.endswith("embeddings"):
        sizes |= {"embeddings": Embeddings(kind.split()[0]), "tied_head": False}
    config = tiny_config(tmp_path, dropout=0.1, micro_batch=4)
    routing = from_plain(Routing, {"num_experts": 4, "router_noise": 0.2} | routing)
    config = dataclasses.replace(config, routing=routing, model=dataclasses.replace(config.model, **sizes))
    straight, resumed = (make_trainer(config, model=build_model(config, None)) for _ in range(2))
    for _ in range(2):
        straight.train_step()
    state = {"key": "", "data_fingerprint": "", **straight.state_dict()}
    checkpoint.save(tmp_path / "checkpoint", state)
    resumed.load_state_dict(checkpoint.load_newest(tmp_path / "checkpoint"))
    for trainer in (straight, resumed):
        for _ in range(2):
            trainer.train_step()
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert resumed.losses.read() == straight.losses.read()
