"""Dispatch by torch's grouped product: all rows gathered, two products over all experts, all rows summed back.

Runs on every device and under autocast, and is captured by torch.compile.

Shape suffixes: N tokens, D width.
"""

from torch import Tensor

from moe_study.model.moe.experts.dispatch_plan import DispatchPlan
from moe_study.model.moe.experts.experts import Experts
from moe_study.model.moe.experts.rows import combine, gather
from moe_study.model.precision import product_dtype


def grouped_ffn(x_ND: Tensor, plan: DispatchPlan, experts: Experts) -> Tensor:
    """See `dispatch.expert_ffn`."""
    return combine(experts(gather(x_ND.to(product_dtype(x_ND)), plan), plan.ends_E), plan)  # narrow rows are moved
