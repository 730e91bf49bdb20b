"""The precision that products are computed in, for code that chooses it before torch does."""

import torch
from torch import Tensor


def product_dtype(x: Tensor) -> torch.dtype:
    """In which products with x are computed: autocast's choice where it is on."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
