"""Where a run computes and in which precision, and the process-wide switches that go with it."""

import contextlib
from collections.abc import Mapping
from typing import Any

import torch

from moe_study.design.choices import CHOICES
from moe_study.design.config import RunConfig, RunSettings
from moe_study.errors import ConfigError, StudyError
from moe_study.model.moe.experts import dispatch
from moe_study.model.moe.experts.chunked import CHUNK

PRECISIONS = CHOICES["run.precision"]


def configure(config: RunConfig, *, trains: bool = True) -> torch.device:
    """Set threads, denormals and determinism for this process, and return the device to train on.

    With these settings a run on a CPU is repeatable to the last bit wherever `arithmetic` is the same. Where nothing
    `trains`, determinism is left as it is: torch imports its compiler to set it, which takes longer than all the rest.
    """
    if config.run.precision not in PRECISIONS:
        raise ConfigError(f"run.precision={config.run.precision} is unknown; choose fp32, tf32 or bf16")
    device = choose_device(config.run)
    tf32 = config.run.precision == "tf32"
    if tf32 and device.type != "cuda":
        raise ConfigError(
            "run.precision=tf32 is a mode of NVIDIA GPUs, and this run is on a CPU; use run.precision=fp32 there,"
            " or run.device=cuda where there is a GPU"
        )
    if config.run.dispatch in dispatch.ON_GPUS and device.type != "cuda":
        raise ConfigError(
            f"run.dispatch={config.run.dispatch} runs on NVIDIA GPUs, and this run is on a CPU; use run.dispatch=auto"
        )
    dispatch.check_installed(config.run.dispatch)
    if config.log.threads is not None:
        torch.set_num_threads(config.log.threads)
    # A saturated softmax has denormal gradients, which make every matrix product ten times slower on a CPU.
    torch.set_flush_denormal(True)
    # TF32 only where it is asked for: fp32 means float32. Routers keep float32 in any case (model/moe/exact.py).
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    # Without this the backward pass of x[index] adds with atomics, in an order that changes from run to run.
    if trains:
        torch.use_deterministic_algorithms(device.type == "cpu", warn_only=True)
    # Deterministic mode would also fill every fresh tensor, which costs time and which nothing here reads.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return device


def choose_device(settings: RunSettings) -> torch.device:
    """The device that `run.device` names; StudyError where a GPU is asked for and there is none."""
    name = settings.device
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    if name == "cuda":
        if torch.cuda.is_available():
            return torch.device("cuda")
        raise StudyError(
            "run.device=cuda was asked for, but this machine shows no CUDA GPU to torch; use run.device=cpu"
            " or auto, or start the run where a GPU is visible"
        )
    raise ConfigError(f"run.device={name} is unknown; choose cpu, cuda or auto")


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """The context of every forward pass: bfloat16 where torch deems it safe, or nothing for fp32 and tf32."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def arithmetic(device: torch.device, ranks: int = 1) -> dict[str, Any]:
    """What the last bits of a run depend on, besides its configuration and code. Call it after `configure`.

    `ranks`: processes that train it together, named where there are several.
    """
    facts: dict[str, Any] = {"torch": str(torch.__version__), **({"ranks": ranks} if ranks > 1 else {})}
    if device.type == "cuda":
        return {**facts, "device": torch.cuda.get_device_name(device)}
    instructions = torch.backends.cpu.get_cpu_capability()  # AVX2, AVX512, ...
    facts |= {"device": "cpu", "instructions": instructions, "expert_chunk_rows": CHUNK}
    return {**facts, "threads": torch.get_num_threads()}


def other_arithmetic(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """A sentence on what differs between two values of `arithmetic`, and what to do; None where nothing does."""
    one = {"ranks": 1}  # which is not named
    before, now = one | dict(before), one | dict(now)
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if not changed:
        return None
    listed = ", ".join(f"{name} ({before.get(name)} before, {now.get(name)} now)" for name in changed)
    advice = f"; with log.threads={before['threads']} it would" if changed == ["threads"] else ""
    return f"resumed with other {listed}: it will not end with the bits of an uninterrupted run{advice}"


def device_name(device: torch.device) -> str:
    """What a reader of the results should see: the GPU's name, or cpu with the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} threads"


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory in use so far: allocated by torch on a GPU, resident in the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # not on every platform
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux kilobytes
