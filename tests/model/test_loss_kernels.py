"""The loss's kernel without a GPU: its cases in Triton's interpreter, and its launches compiled for Hopper."""

from typing import Any

import pytest
import torch

from tests.hopper import HOPPER_SHARED_MEMORY, INTERPRETER, launched, run_in_interpreter

__all__ = ["launched"]


@pytest.mark.long
@INTERPRETER
def test_the_cases_hold_in_the_interpreter() -> None:
    run_in_interpreter("tests/model/loss_cases.py")


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("with_grad", [True, False])
def test_every_launch_compiles_for_hopper(launched: list[tuple[str, Any]], dtype: torch.dtype, with_grad: bool) -> None:
    from moe_study.model.loss_kernels import loss_and_logit_gradient_

    loss_and_logit_gradient_(torch.zeros(2, 50257, dtype=dtype), torch.zeros(2, dtype=torch.long), with_grad)
    ((name, kernel),) = launched
    assert name == "cross_entropy_kernel" and kernel.metadata.shared <= HOPPER_SHARED_MEMORY
