"""What code that chooses how to compute has to know: the precision of products, and whether Triton is there."""

import functools
import importlib.util

import torch
from torch import Tensor


def product_dtype(x: Tensor) -> torch.dtype:
    """In which products with x are computed: autocast's choice where it is on."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


@functools.cache
def has_triton() -> bool:
    """Whether kernels written in Triton can be had; this does not import it."""
    return importlib.util.find_spec("triton") is not None
