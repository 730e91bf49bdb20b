"""Which precision products are computed in."""

import torch

from moe_study.model.precision import product_dtype


def test_products_have_the_precision_of_their_input_or_autocast_s() -> None:
    x = torch.zeros(2, 2)
    for inside in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=inside):
            assert product_dtype(x) is (x @ x).dtype is (torch.bfloat16 if inside else torch.float32)
