"""What code that chooses how to compute has to know: the precision of products, and whether Triton is there."""

import importlib.util

import torch
from torch import Tensor

# Whether kernels written in Triton can be had; this does not import it. No function: torch.compile reads it as it is.
HAS_TRITON = importlib.util.find_spec("triton") is not None


def product_dtype(x: Tensor) -> torch.dtype:
    """In which products with x are computed: autocast's choice where it is on."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
