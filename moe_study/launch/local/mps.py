"""CUDA's Multi-Process Service: kernels of several processes run on one GPU at the same time, not by turns.

One control daemon for each GPU that several runs share, with folders of its own, so that a daemon of somebody else
is never touched; a daemon that the user already runs is used as it is. NVIDIA's names for what is set here are in
https://docs.nvidia.com/deploy/mps. A pool that is killed (SIGKILL) leaves an idle daemon behind.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from moe_study.errors import ConfigError
from moe_study.launch.local.slots import Slot

MODES = ("auto", "on", "off")
CONTROL = "nvidia-cuda-mps-control"
USUAL_PIPES = Path("/tmp/nvidia-mps")  # of a daemon that was started without a folder of its own
PATIENCE = 60.0  # seconds for a daemon to start, to answer, and to stop
# A context on the GPU, made as a run would make it: where MPS is forbidden, as in many containers, this fails.
TRY_GPU = """
import ctypes, sys
cuda, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
sys.exit(bool(cuda.cuInit(0) or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)))
"""


class _CannotServe(Exception):
    """Why there is no MPS here, in a few words."""


@contextlib.contextmanager
def shared(slots: Sequence[Slot], mode: str) -> Iterator[list[Slot]]:
    """The slots, those that share a GPU with their part of it served by MPS; the daemons stop at the end.

    `mode` auto does without MPS where it cannot be had; with on that is a ConfigError. Off changes nothing.
    """
    if mode not in MODES:
        raise ConfigError(f"hydra.launcher.mps={mode} is unknown; choose {', '.join(MODES)}")
    runs = Counter(slot.gpu for slot in slots if slot.gpu is not None)
    gpus = [gpu for gpu, number in runs.items() if number > 1]
    if mode == "off" or not gpus or _is_running():
        yield list(slots)
        return
    with contextlib.ExitStack() as daemons:
        try:
            served = {gpu: daemons.enter_context(_daemon(gpu)) for gpu in gpus}
        except _CannotServe as reason:
            if mode == "on":
                raise ConfigError(f"hydra.launcher.mps=on, but {reason}; use mps=auto or mps=off") from None
            served = {}
        yield [replace(slot, environment=served.get(slot.gpu or "", slot.environment)) for slot in slots]


def _is_running() -> bool:
    """Whether there is a daemon that processes find without being told."""
    return "CUDA_MPS_PIPE_DIRECTORY" in os.environ or (USUAL_PIPES / "control").exists()


@contextlib.contextmanager
def _daemon(gpu: str) -> Iterator[Mapping[str, str]]:
    """The environment of the processes that share `gpu` through a daemon of its own."""
    if shutil.which(CONTROL) is None:
        raise _CannotServe(f"there is no {CONTROL} on PATH")
    with tempfile.TemporaryDirectory(prefix="mps-", ignore_cleanup_errors=True) as folder:
        folders = {f"CUDA_MPS_{name}_DIRECTORY": f"{folder}/{name.lower()}" for name in ("PIPE", "LOG")}
        for path in folders.values():
            os.mkdir(path)
        _run([CONTROL, "-d"], {**folders, "CUDA_VISIBLE_DEVICES": gpu}, "the MPS daemon does not start")
        try:
            environment = {**folders, "CUDA_VISIBLE_DEVICES": "0"}  # counted among those that the daemon serves
            _run([sys.executable, "-c", TRY_GPU], environment, "a process cannot use the GPU through MPS")
            yield environment
        finally:
            with contextlib.suppress(_CannotServe):
                _run([CONTROL], folders, "the MPS daemon does not stop", "quit\n")


def _run(command: Sequence[str], environment: Mapping[str, str], otherwise: str, words: str = "") -> None:
    """Run to the end; _CannotServe with `otherwise` where it fails."""
    try:
        subprocess.run(
            command,
            env={**os.environ, **environment},
            input=words,
            encoding="utf-8",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE,
            check=True,
            start_new_session=True,  # Ctrl-C is for the runs
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise _CannotServe(f"{otherwise} ({error})") from error
