"""Several ranks train the run that one process would: same curve and buffers, one folder, whatever becomes of them."""

import dataclasses
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from moe_study.design.config import Embeddings, ModelConfig, RunConfig
from moe_study.design.routing import (
    Balance,
    Capacity,
    Choices,
    ChoiceScope,
    Context,
    Gate,
    Group,
    Routing,
    Selection,
    Soft,
    SoftForm,
    Unit,
)
from moe_study.launch.execute import execute
from moe_study.runs.folder import RunFolder, State
from moe_study.training import checkpoint
from moe_study.training.distributed import ALONE, RankLost, lost_ranks
from moe_study.training.loop import Trainer
from moe_study.training.tracking import flatten
from tests.training.doubles import tiny_config
from tests.training.harness import multiprocessing

SPLIT: dict[str, Any] = {"batch_size": 8, "micro_batch": None}
WHOLE: dict[str, Any] = {"batch_size": 8, "micro_batch": 2}
BALANCE = Balance(switch=0.05, z=0.001)
CASES: dict[str, tuple[Routing, dict[str, Any], float]] = {
    "balanced": (Routing(num_experts=4, k=2, balance=BALANCE), SPLIT, 0.0),
    "balanced over the batch": (
        Routing(num_experts=4, k=2, balance=dataclasses.replace(BALANCE, scope="batch")), WHOLE, 0.0,
    ),
    "balanced over split batches": (
        Routing(num_experts=4, k=1, balance=dataclasses.replace(BALANCE, scope="batch")),
        {"batch_size": 12, "micro_batch": 4}, 0.0,
    ),
    "positive": (Routing(selection=Selection.POSITIVE, gate=Gate.RELU, num_experts=4, k=2), SPLIT, 0.0),
    "loss-free bias": (Routing(num_experts=4, k=2, balance=Balance(bias_rate=0.01, scope="batch")), SPLIT, 0.0),
    "threshold with a budget": (
        Routing(selection=Selection.THRESHOLD, num_experts=4, threshold=0.6, threshold_budget=2.0), SPLIT, 0.0,
    ),
    "expert choice by a cutoff": (
        Routing(selection=Selection.EXPERT_CHOICE, num_experts=4, k=2, choice_scope=ChoiceScope.CUTOFF), WHOLE, 0.0,
    ),
    "capacity of a micro-batch": (
        Routing(num_experts=4, k=2, capacity=Capacity(factor=1.0, group=Group.BATCH)), WHOLE, 0.0,
    ),
    "noise and dropout": (Routing(num_experts=4, k=2, router_noise=0.5, balance=BALANCE), WHOLE, 0.1),
    "soft": (Routing(selection=Selection.SOFT, num_experts=4), SPLIT, 0.0),
    "soft across the micro-batch": (
        Routing(selection=Selection.SOFT, num_experts=4, soft=Soft(form=SoftForm.ACROSS_BATCH, group_size=2)),
        WHOLE, 0.0,
    ),
    "merged": (
        Routing(
            selection=Selection.MERGE, num_experts=4, unit=Unit.SEQUENCE, context=Context.UNIT_MEAN,
            gate=Gate.SOFTMAX_THEN_PICK,
        ),
        SPLIT, 0.0,
    ),
    "dense": (Routing(selection=Selection.DENSE), SPLIT, 0.0),
    "loss on first choices beside a bias": (
        Routing(num_experts=4, k=2, balance=Balance(0.05, bias_rate=0.01, scope="batch", choices=Choices.FIRST)),
        WHOLE, 0.0,
    ),
    "redrawn embeddings": (Routing(num_experts=4, k=2), SPLIT, 0.0),
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {"redrawn embeddings": {"embeddings": Embeddings.REDRAWN, "tied_head": False}}
STEPS = 6


def point(root: Path, data: Any, name: str = "balanced", checkpoint_every: int = 0) -> RunConfig:
    routing, settings, dropout = CASES[name]
    log = {"log_every": 1, "routing_every": 3, "gradients_every": 2, "checkpoint_every": checkpoint_every}
    config = tiny_config(root, log=log, steps=STEPS, **settings)
    model = ModelConfig(layers=2, heads=2, width=16, context=16, dropout=dropout, **MODELS.get(name, {}))
    return dataclasses.replace(config, data=data, model=model, routing=routing)


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def on_ranks(size: int, function: Callable[[int], None]) -> list[int | None]:
    """`function(rank)` in `size` processes that find one another as torchrun's do; their exit codes."""
    port = free_port()

    def child(rank: int) -> None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        os.environ.update(RANK=f"{rank}", LOCAL_RANK=f"{rank}", WORLD_SIZE=f"{size}")
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=f"{port}")
        torch.set_num_threads(1)
        function(rank)

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=child, args=(rank,)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


def curve(config: RunConfig, kind: str) -> list[dict[str, Any]]:
    return [record for record in RunFolder.of(config).metrics() if record["kind"] == kind]


def weights(config: RunConfig) -> dict[str, torch.Tensor]:
    state = checkpoint.load_newest(RunFolder.of(config).checkpoint_folder)
    assert state is not None
    return state["model"]


def assert_same_run(one: RunConfig, other: RunConfig) -> None:
    """To float tolerance."""
    for kind, names in (("train", ("loss", "grad_norm", "aux")), ("validation", ("loss",))):
        ours, theirs = curve(one, kind), curve(other, kind)
        assert [record["step"] for record in ours] == [record["step"] for record in theirs]
        for mine, yours in zip(ours, theirs, strict=True):
            for name in names:
                assert mine[name] == pytest.approx(yours[name], rel=2e-4, abs=1e-6), (kind, mine["step"], name)
    for mine, yours in zip(curve(one, "routing"), curve(other, "routing"), strict=True):
        for name in ("share", "wanted_per_token", "kept_per_token", "executed_per_token"):
            assert mine[name] == pytest.approx(yours[name], abs=0.01), (mine["step"], name)
    for mine, yours in zip(curve(one, "gradients"), curve(other, "gradients"), strict=True):
        assert flatten(mine) == pytest.approx(flatten(yours), rel=2e-3, abs=1e-5)
    for name, value in weights(one).items():
        if name.endswith("attn.qkv.bias"):  # keys' have no gradient but rounding, which Adam makes steps of
            continue
        torch.testing.assert_close(value, weights(other)[name], rtol=1e-3, atol=2e-4, msg=lambda text, name=name: name)
    results = [RunFolder.of(config).result() for config in (one, other)]
    assert results[0] is not None and results[1] is not None
    assert results[0]["validation_loss"] == pytest.approx(results[1]["validation_loss"], rel=1e-4)
    assert results[0]["validation_tokens"] == results[1]["validation_tokens"]
    assert results[0]["by_language"].keys() == results[1]["by_language"].keys()


class Pairs:
    """Each case trained by one process and by two ranks, when it is first asked for."""

    def __init__(self, root: Path, data: Any) -> None:
        self.root, self.data = root, data

    def of(self, name: str = "balanced") -> tuple[RunConfig, RunConfig]:
        one, two = (point(self.root / ranks, self.data, name) for ranks in ("one", "two"))
        if RunFolder.of(two).result() is None:
            execute(one)  # first, so that the others find its routing audited
            assert on_ranks(2, lambda rank: execute(two) and None) == [0, 0]
        return one, two


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory, data: Any) -> Pairs:
    return Pairs(tmp_path_factory.mktemp("pairs"), data)


SOON = "balanced over split batches"


@pytest.mark.parametrize(
    "name", [name if name == SOON else pytest.param(name, marks=pytest.mark.long) for name in CASES]
)
def test_two_ranks_have_the_curve_of_one_process(name: str, pairs: Pairs) -> None:
    assert_same_run(*pairs.of(name))


def test_the_number_of_ranks_stands_in_the_provenance_and_not_in_the_key(pairs: Pairs) -> None:
    one, two = pairs.of()
    assert one.key == two.key
    provenance = RunFolder.of(two).provenance()
    assert provenance is not None
    assert provenance["arithmetic"]["ranks"] == 2


def test_a_signal_to_one_rank_stops_all_after_the_same_step_and_one_process_goes_on(
    tmp_path: Path, pairs: Pairs, data: Any
) -> None:
    config = point(tmp_path, data)

    def train(rank: int) -> None:
        original = Trainer.train_step

        def train_step(self: Trainer) -> None:
            original(self)
            if rank == 1 and self.step == 3:
                os.kill(os.getpid(), signal.SIGTERM)

        Trainer.train_step = train_step  # type: ignore[method-assign]
        execute(config)

    assert on_ranks(2, train) == [0, 0]
    status = RunFolder.of(config).status()
    assert (status.state, status.step) == (State.PREEMPTED, 3)
    execute(config)
    assert_same_run(config, pairs.of()[0])
    result = RunFolder.of(config).result()
    assert result is not None
    (warning,) = result["warnings"]
    assert "ranks (2 before, 1 now)" in warning


@pytest.mark.long
def test_a_rank_that_is_killed_leaves_a_run_that_can_be_resumed_by_any_number(
    tmp_path: Path, pairs: Pairs, data: Any
) -> None:
    config = point(tmp_path, data, checkpoint_every=2)

    def train(rank: int) -> None:
        original = Trainer.train_step

        def train_step(self: Trainer) -> None:
            if rank == 1 and self.step == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            original(self)

        Trainer.train_step = train_step  # type: ignore[method-assign]
        execute(config)

    first, second = on_ranks(2, train)
    assert first not in (0, None)
    assert second == -signal.SIGKILL
    status = RunFolder.of(config).status()
    assert status.state is State.PREEMPTED
    assert "another process of this run is gone" in status.message
    assert on_ranks(4, lambda rank: execute(config) and None) == [0, 0, 0, 0]
    assert_same_run(config, pairs.of()[0])


def test_ranks_that_see_different_folders_are_told_so(tmp_path: Path, data: Any) -> None:
    execute(point(tmp_path / "0", data))
    folder = RunFolder.of(point(tmp_path / "0", data))
    folder.result_file.unlink()

    def train(rank: int) -> None:
        execute(point(tmp_path / str(rank), data))

    assert on_ranks(2, train) != [0, 0]
    assert "must be one folder that all of them see" in folder.status().message


def test_a_lost_rank_is_the_machines_fault() -> None:
    from moe_study.guard import is_resumable

    with pytest.raises(RankLost, match="rerun the command to resume") as caught, lost_ranks():
        raise RuntimeError("Connection closed by peer [127.0.0.1]:12345")
    assert is_resumable(caught.value)


def test_a_single_process_reduces_nothing() -> None:
    value = torch.tensor([1.0, 2.0])
    ALONE.sum_all([value])
    assert value.tolist() == [1.0, 2.0]
    assert ALONE.gathered("note") == ["note"]
    assert ALONE.agreed(None) is None
    assert ALONE.agreed("SIGTERM") == "SIGTERM"
