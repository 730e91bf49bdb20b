"""Launching the kernels of `triton_kernels`: tile sizes, grids, and allocation of results.

Tile sizes are fixed, not timed at first use: they decide in which order sums are taken, and a run that goes on in
another process must compute the same bits. bench/gpu.py times the alternatives.

Suffixes: P pairs of a block and an expert, N tokens, Q = P * block rows, D width, F hidden units, E experts, M row
tiles, S column tiles, I inner and O outer columns of a product whose rows X are tokens or rows.
"""

import torch
import triton
from torch import Tensor

from moe_study.model.moe.experts import triton_kernels as kernels

# By kernel and bytes of an element. Chosen by what the compiler says for Hopper (no register is spilled, two stages
# are under way while one is worked on), not by measurement.
TILES = {
    ("product", 2): {"BO": 128, "BI": 64, "num_warps": 8, "num_stages": 3},
    ("product", 4): {"BO": 128, "BI": 32, "num_warps": 8, "num_stages": 3},
    ("hidden gradient", 2): {"BO": 128, "BI": 64, "num_warps": 8, "num_stages": 3},
    ("hidden gradient", 4): {"BO": 64, "BI": 32, "num_warps": 8, "num_stages": 3},
    ("weight gradient", 2): {"BI": 128, "BO": 128, "BQ": 64, "num_warps": 8, "num_stages": 3},
    ("weight gradient", 4): {"BI": 128, "BO": 128, "BQ": 32, "num_warps": 8, "num_stages": 3},
}
ROWS = 128  # of a row tile
if triton.knobs.runtime.interpret:  # small, so that tests have many
    TILES = {key: {size: 16 for size in tiles if size.startswith("B")} for key, tiles in TILES.items()}
    ROWS = 16


class RowTiles:
    """Tiles of the Q sorted rows, none of which has rows of two experts; and the products by tiles."""

    def __init__(self, ends_E: Tensor, rows: int, block: int) -> None:
        experts = ends_E.shape[0]
        self.ends_E, self.rows, self.block = ends_E, rows, block
        self.count = triton.cdiv(rows, ROWS) + experts  # at most; spare ones have no expert
        self.expert_M, self.row_M = (torch.empty(self.count, dtype=torch.int32, device=ends_E.device) for _ in "ab")
        kernels.tile_map_kernel[(triton.cdiv(self.count, 16),)](
            ends_E,
            self.expert_M,
            self.row_M,
            experts,
            self.count,
            ROWS=ROWS,
            BE=triton.next_power_of_2(experts),
            BM=16,
        )

    def product(
        self,
        a_XI: Tensor,
        b_EIO: Tensor,
        out_QO: Tensor,
        *,
        block_P: Tensor | None = None,
        bias_EO: Tensor | None = None,
        weight_P: Tensor | None = None,
        before_QO: Tensor | None = None,
        gelu: bool = False,
    ) -> None:
        """out = [weight *] [gelu of] (a [at each row's token] @ the expert's b [+ bias]); `before`: gelu's argument."""
        inner, outer = b_EIO.shape[1:]
        tiles = TILES["product", a_XI.element_size()]
        kernels.product_kernel[(self.count * triton.cdiv(outer, tiles["BO"]),)](
            a_XI,
            block_P,
            b_EIO,
            bias_EO,
            weight_P,
            before_QO,
            out_QO,
            self.ends_E,
            self.expert_M,
            self.row_M,
            inner,
            outer,
            *b_EIO.stride(),
            GELU=gelu,
            BLOCK=self.block,
            PRECISION=_precision(),
            BM=ROWS,
            **tiles,
        )

    def hidden_gradient(
        self,
        grad_ND: Tensor,
        block_P: Tensor,
        down_EFD: Tensor,
        down_bias_ED: Tensor | None,
        weight_P: Tensor,
        h_QF: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """weight * gelu(h) (Q, F), d loss / d h (Q, F), and d loss / d weight (P) in float32."""
        hidden, width = down_EFD.shape[1:]
        active_QF, grad_h_QF = torch.empty_like(h_QF), torch.empty_like(h_QF)
        tiles = TILES["hidden gradient", h_QF.element_size()]
        column_tiles = triton.cdiv(hidden, tiles["BO"])
        grad_weight_SQ = weight_P.new_empty(column_tiles, self.rows)
        kernels.hidden_gradient_kernel[(self.count * column_tiles,)](
            grad_ND,
            block_P,
            down_EFD,
            down_bias_ED,
            weight_P,
            h_QF,
            active_QF,
            grad_h_QF,
            grad_weight_SQ,
            self.ends_E,
            self.expert_M,
            self.row_M,
            width,
            hidden,
            self.rows,
            BLOCK=self.block,
            PRECISION=_precision(),
            BM=ROWS,
            **tiles,
        )
        return active_QF, grad_h_QF, grad_weight_SQ.view(column_tiles, -1, self.block).sum((0, 2))


def weight_gradient(
    a_XI: Tensor,
    b_XO: Tensor,
    ends_E: Tensor,
    grad_EIO: Tensor,
    grad_bias_EO: Tensor,
    block: int,
    *,
    a_block_P: Tensor | None = None,
    b_block_P: Tensor | None = None,
    weight_P: Tensor | None = None,
) -> None:
    """Over each expert's rows, grad = a.T @ b and, if it has elements, grad_bias = sum of [weight *] b.

    With `a_block_P` or `b_block_P`, a or b is read at the rows' tokens.
    """
    experts, inner, outer = grad_EIO.shape
    tiles = TILES["weight gradient", a_XI.element_size()]
    kernels.weight_gradient_kernel[(experts * triton.cdiv(inner, tiles["BI"]) * triton.cdiv(outer, tiles["BO"]),)](
        a_XI,
        a_block_P,
        b_XO,
        b_block_P,
        weight_P,
        grad_EIO,
        grad_bias_EO if grad_bias_EO.numel() else None,
        ends_E,
        inner,
        outer,
        BLOCK=block,
        PRECISION=_precision(),
        **tiles,
    )


def _precision() -> str:
    """How products of float32 values are made; of no consequence for narrower ones."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
