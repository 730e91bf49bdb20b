"""Triton kernels of the experts' feed-forward on pairs sorted by expert; `triton_experts` is the function made of them.

The grouped product with its gather fused into the loads is the idea of ScatterMoE (2403.08245); ragged groups
without padding that of MegaBlocks (2211.15841); that the gate weight's gradient comes out of the backward product's
epilogue, so that no expert output is kept, that of SonicMoE (2512.14080). No atomics: every sum has a fixed order,
so that the same inputs give the same bits.

Row tiles never cross experts. Which expert a tile belongs to is worked out on the device, for the most tiles that
there can be, ceil(Q / BM) + E; spare ones leave at once. So no count is ever read by the host.

Masks are everywhere, sizes are free. Rows past an expert's end are computed from whatever is at hand and not stored,
except where rows are summed over: there they are zero.

Suffixes: P pairs of a block and an expert, N tokens, Q = P * BLOCK rows, D width, F hidden units, E experts, M row
tiles, S column tiles, I inner and O outer columns of a product whose rows X are tokens or rows. Pointers carry the
suffix of what they point to; None switches their part of a kernel off.
"""

# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit(do_not_specialize=["tiles"])
def tile_map_kernel(ends_E, expert_M, row_M, experts, tiles, ROWS: tl.constexpr, BE: tl.constexpr, BM: tl.constexpr):
    """Expert (-1: spare) and first row of every row tile."""
    tile = tl.program_id(0) * BM + tl.arange(0, BM)
    e = tl.arange(0, BE)
    end = tl.load(ends_E + e, mask=e < experts, other=0)
    start = tl.load(ends_E + e - 1, mask=(e > 0) & (e < experts), other=0)
    tiles_E = tl.where(e < experts, (end - start + ROWS - 1) // ROWS, 0)
    is_before = tl.cumsum(tiles_E, 0)[None, :] <= tile[:, None]
    expert = tl.sum(is_before.to(tl.int32), 1)
    skipped = tl.sum(tl.where(is_before, tiles_E[None, :], 0), 1)
    used = expert < experts
    first = tl.load(ends_E + expert - 1, mask=used & (expert > 0), other=0)
    tl.store(expert_M + tile, tl.where(used, expert, -1), mask=tile < tiles)
    tl.store(row_M + tile, first + (tile - skipped) * ROWS, mask=tile < tiles)


@triton.jit
def _tile_of_rows(expert_M, row_M, ends_E, outer, BM: tl.constexpr, BO: tl.constexpr):
    """A program's expert, first row, which of the BM rows from there are the expert's, and number of column tile.

    Only the first row is a 64-bit number: offsets from it take half the registers.
    """
    column_tiles = tl.cdiv(outer, BO)
    tile = tl.program_id(0) // column_tiles
    expert = tl.load(expert_M + tile)
    first = tl.load(row_M + tile)
    in_rows = first + tl.arange(0, BM) < tl.load(ends_E + expert, mask=expert >= 0, other=0)
    return expert, first.to(tl.int64), in_rows, tl.program_id(0) % column_tiles


@triton.jit
def _source(block_P, row, in_rows, BLOCK: tl.constexpr):
    """Where row q of a product is read: at its token, or at q itself. Rows out of range read the first one."""
    if block_P is None:
        source = tl.where(in_rows, row, 0)
    else:
        block = tl.load(block_P + row // BLOCK, mask=in_rows, other=0).to(tl.int64)
        source = block * BLOCK + row % BLOCK
    return source


@triton.jit
def _weight(weight_P, row, in_rows, BLOCK: tl.constexpr):
    return tl.load(weight_P + row // BLOCK, mask=in_rows, other=0.0)


@triton.jit
def _add_dot(total, a, b, PRECISION: tl.constexpr):
    if INTERPRETED:  # Triton 3.7's interpreter multiplies the bits of bfloat16 values as if they were integers
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, total, input_precision=PRECISION)


@triton.jit
def _product(
    a_I, b_O, vector_I, inner, stride_bi, in_columns, VECTOR: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BO: tl.constexpr, BI: tl.constexpr,
):  # fmt: skip
    """Rows that begin at the pointers `a_I` times columns that begin at `b_O`; and, with VECTOR, times a vector."""
    i = tl.arange(0, BI)
    total = tl.zeros((BM, BO), tl.float32)
    by_vector = tl.zeros((BM,), tl.float32)
    for first in range(0, inner, BI):
        in_inner = first + i < inner
        a = tl.load(a_I[:, None] + (first + i)[None, :], mask=in_inner[None, :], other=0.0)
        b_mask = in_inner[:, None] & in_columns[None, :]
        b = tl.load(b_O[None, :] + (first + i)[:, None] * stride_bi, mask=b_mask, other=0.0)
        total = _add_dot(total, a, b, PRECISION)
        if VECTOR:
            vector = tl.load(vector_I + first + i, mask=in_inner, other=0.0).to(tl.float32)
            by_vector += tl.sum(a.to(tl.float32) * vector[None, :], 1)
    return total, by_vector


@triton.jit
def gelu(h):
    """GELU and its derivative, by the error function."""
    share = 0.5 + 0.5 * tl.math.erf(h * 0.7071067811865476)
    density = 0.3989422804014327 * tl.exp(-0.5 * h * h)
    return h * share, share + h * density


@triton.jit
def product_kernel(
    a_XI, block_P, b_EIO, bias_EO, weight_P, before_QO, out_QO, ends_E, expert_M, row_M,
    inner, outer, stride_be, stride_bi, stride_bo,
    GELU: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BO: tl.constexpr, BI: tl.constexpr,
):  # fmt: skip
    """out[q] = weight[q] * gelu(a[token[q]] @ b[e] + bias[e]) with e the expert of q; `before`: what gelu is given."""
    expert, first, in_rows, column_tile = _tile_of_rows(expert_M, row_M, ends_E, outer, BM, BO)
    if expert < 0:
        return
    row, column = tl.arange(0, BM), column_tile * BO + tl.arange(0, BO)
    in_columns = column < outer
    a_I = a_XI + _source(block_P, first + row, in_rows, BLOCK) * inner
    b_O = b_EIO + expert.to(tl.int64) * stride_be + column * stride_bo
    out, _ = _product(a_I, b_O, a_XI, inner, stride_bi, in_columns, False, PRECISION, BM, BO, BI)
    if bias_EO is not None:
        out += tl.load(bias_EO + expert * outer + column, mask=in_columns, other=0.0).to(tl.float32)[None, :]
    cell = row[:, None] * outer + column[None, :]
    in_cells = in_rows[:, None] & in_columns[None, :]
    if GELU:
        # Rounded first, so that the backward pass, which reads what is stored, finds the same value again.
        h = out.to(out_QO.dtype.element_ty)
        if before_QO is not None:
            tl.store(before_QO + first * outer + cell, h, mask=in_cells)
        out, _ = gelu(h.to(tl.float32))
    if weight_P is not None:
        out *= _weight(weight_P, first + row, in_rows, BLOCK)[:, None]
    tl.store(out_QO + first * outer + cell, out.to(out_QO.dtype.element_ty), mask=in_cells)


@triton.jit
def _through_gelu(
    u,
    first_column,
    first,
    in_rows,
    h_QF,
    weight_P,
    active_QF,
    grad_h_QF,
    outer,
    BLOCK: tl.constexpr,
    BM: tl.constexpr,
    BO: tl.constexpr,
):
    """Store weight * gelu(h) and weight * u * gelu'(h) of some columns; their part of every row's u . gelu(h)."""
    row, column = tl.arange(0, BM), first_column + tl.arange(0, BO)
    cell = row[:, None] * outer + column[None, :]
    in_cells = in_rows[:, None] & (column < outer)[None, :]
    weight = _weight(weight_P, first + row, in_rows, BLOCK)[:, None]
    h = tl.load(h_QF + first * outer + cell, mask=in_cells, other=0.0).to(tl.float32)
    active, slope = gelu(h)
    tl.store(active_QF + first * outer + cell, (weight * active).to(active_QF.dtype.element_ty), mask=in_cells)
    tl.store(grad_h_QF + first * outer + cell, (weight * u * slope).to(grad_h_QF.dtype.element_ty), mask=in_cells)
    return tl.sum(u * active, 1)  # columns out of range add nothing: gelu(0) = 0


@triton.jit(do_not_specialize=["rows"])
def hidden_gradient_kernel(
    grad_ND, block_P, down_EFD, down_bias_ED, weight_P, h_QF,
    active_QF, grad_h_QF, grad_weight_SQ, ends_E, expert_M, row_M, inner, outer, rows,
    BLOCK: tl.constexpr, PRECISION: tl.constexpr, BM: tl.constexpr, BO: tl.constexpr, BI: tl.constexpr,
):  # fmt: skip
    """Back through the down projection, the gate weight and GELU; inner is D, outer is F.

    With u = grad[token] @ down.T: active = weight * gelu(h), for the gradient of `down`; grad_h = weight * u *
    gelu'(h); and a row's share of d loss / d weight = u . gelu(h) + grad[token] . down_bias, by column tile.
    """
    expert, first, in_rows, column_tile = _tile_of_rows(expert_M, row_M, ends_E, outer, BM, BO)
    if expert < 0:
        return
    column = column_tile * BO + tl.arange(0, BO)
    in_columns = column < outer
    g_D = grad_ND + _source(block_P, first + tl.arange(0, BM), in_rows, BLOCK) * inner
    down_F = down_EFD + (expert.to(tl.int64) * outer + column) * inner
    if down_bias_ED is not None and column_tile == 0:
        bias_D = down_bias_ED + expert * inner
        u, by_weight = _product(g_D, down_F, bias_D, inner, 1, in_columns, True, PRECISION, BM, BO, BI)
    else:
        u, by_weight = _product(g_D, down_F, grad_ND, inner, 1, in_columns, False, PRECISION, BM, BO, BI)
    # Half of the columns at a time: all at once do not fit the registers.
    left, right = tl.split(tl.permute(tl.reshape(u, (BM, 2, BO // 2)), (0, 2, 1)))
    half = column_tile * 2
    by_weight += _through_gelu(
        left, half * (BO // 2), first, in_rows, h_QF, weight_P, active_QF, grad_h_QF, outer, BLOCK, BM, BO // 2
    )
    by_weight += _through_gelu(
        right, (half + 1) * (BO // 2), first, in_rows, h_QF, weight_P, active_QF, grad_h_QF, outer, BLOCK, BM, BO // 2
    )
    tl.store(grad_weight_SQ + column_tile * rows + first + tl.arange(0, BM), by_weight, mask=in_rows)


@triton.jit
def _inner_product_over_rows(
    a_XI, a_block_P, b_XO, b_block_P, weight_P, start, end, i, o, inner, outer,
    SUM: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
    BI: tl.constexpr, BO: tl.constexpr, BQ: tl.constexpr,
):  # fmt: skip
    """Sum over an expert's rows of outer products a b; and, with SUM, of weight * b."""
    total = tl.zeros((BI, BO), tl.float32)
    sum_b = tl.zeros((BO,), tl.float32)
    for first in range(start, end, BQ):
        row = first + tl.arange(0, BQ)
        in_rows = row < end
        a_row = _source(a_block_P, row.to(tl.int64), in_rows, BLOCK)
        b_row = _source(b_block_P, row.to(tl.int64), in_rows, BLOCK)
        a_mask, b_mask = in_rows[:, None] & (i < inner)[None, :], in_rows[:, None] & (o < outer)[None, :]
        a = tl.load(a_XI + a_row[:, None] * inner + i[None, :], mask=a_mask, other=0.0)
        b = tl.load(b_XO + b_row[:, None] * outer + o[None, :], mask=b_mask, other=0.0)
        total = _add_dot(total, tl.trans(a), b, PRECISION)
        if SUM:
            weighted = b.to(tl.float32)
            if weight_P is not None:
                weighted *= _weight(weight_P, row, in_rows, BLOCK)[:, None]
            sum_b += tl.sum(weighted, 0)
    return total, sum_b


@triton.jit
def weight_gradient_kernel(
    a_XI, a_block_P, b_XO, b_block_P, weight_P, grad_EIO, grad_bias_EO, ends_E, inner, outer,
    BLOCK: tl.constexpr, PRECISION: tl.constexpr, BI: tl.constexpr, BO: tl.constexpr, BQ: tl.constexpr,
):  # fmt: skip
    """grad[e] = a.T @ b and grad_bias[e] = sum of weight * b, over the rows of expert e; zero where it has none."""
    row_tiles, column_tiles = tl.cdiv(inner, BI), tl.cdiv(outer, BO)
    expert = tl.program_id(0) // (row_tiles * column_tiles)
    tile = tl.program_id(0) % (row_tiles * column_tiles)
    i = tile // column_tiles * BI + tl.arange(0, BI)
    o = tile % column_tiles * BO + tl.arange(0, BO)
    start = tl.load(ends_E + expert - 1, mask=expert > 0, other=0)
    end = tl.load(ends_E + expert)
    if grad_bias_EO is not None and tile < column_tiles:  # the first row of tiles also has the bias
        grad, grad_bias = _inner_product_over_rows(
            a_XI, a_block_P, b_XO, b_block_P, weight_P, start, end, i, o, inner, outer,
            True, BLOCK, PRECISION, BI, BO, BQ,
        )  # fmt: skip
        tl.store(grad_bias_EO + expert * outer + o, grad_bias.to(grad_bias_EO.dtype.element_ty), mask=o < outer)
    else:
        grad, _ = _inner_product_over_rows(
            a_XI, a_block_P, b_XO, b_block_P, weight_P, start, end, i, o, inner, outer,
            False, BLOCK, PRECISION, BI, BO, BQ,
        )  # fmt: skip
    cell = (expert.to(tl.int64) * inner + i[:, None]) * outer + o[None, :]
    in_cells = (i < inner)[:, None] & (o < outer)[None, :]
    tl.store(grad_EIO + cell, grad.to(grad_EIO.dtype.element_ty), mask=in_cells)
