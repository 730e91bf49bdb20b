"""Kernels written in Triton, tested without a GPU: in its interpreter, and compiled for Hopper.

The interpreter has to be chosen before Triton is first imported, hence a process of its own. It runs what the
compiler refuses, and knows no limits of registers and memory, hence the compilation, which needs no GPU.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton", reason="Triton is not installed (it is there for Linux on x86-64 alone)")

ROOT = Path(__file__).resolve().parents[1]
VERSION = tuple(int(part) for part in triton.__version__.split(".")[:2])
HOPPER_SHARED_MEMORY = 227 * 1024  # bytes that one program may have
INTERPRETER = pytest.mark.skipif(
    VERSION < (3, 7), reason="the interpreter of Triton before 3.7 does not work with NumPy 2.4"
)


def run_in_interpreter(*cases: str) -> None:
    """Run these files of tests, named from the root, in Triton's interpreter."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *cases]
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]


class Hopper:
    """What Triton asks of a driver before it launches a kernel, answered as on an H100 or H200."""

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, Any]]:
    """Name and compiled form of each kernel that is launched; launches end with the compilation."""
    from triton.runtime import driver, jit

    kernels: list[tuple[str, Any]] = []
    run = jit.JITFunction.run

    def compile_only(self: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        kernels.append((self.fn.__name__, run(self, *arguments, grid=grid, warmup=True, **options)))
        return kernels[-1][1]

    monkeypatch.setattr(jit.JITFunction, "run", compile_only)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(driver, "_active", Hopper())
    return kernels
