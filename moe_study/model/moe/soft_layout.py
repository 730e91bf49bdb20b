"""Which tokens share their slots: a window or a batch cut into blocks, and joined again.

Shape suffixes: B sequences, T positions, G mixing groups of J blocks of M tokens, X any last axis.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from moe_study.design.routing import Routing, SoftForm
from moe_study.errors import StudyError


@dataclass(frozen=True)
class Blocks:
    """A window cut into blocks of M consecutive tokens: G = B sequences of J blocks, the last one filled up.

    M = T is the paper's layer over the whole sequence; M = 1 serves the prefix form.
    """

    length: int  # T
    block: int  # M

    def cut(self, x_BTX: Tensor, fill: float = 0.0) -> Tensor:
        """(G, J, M, X)."""
        missing = -self.length % self.block
        whole_BTX = F.pad(x_BTX, (0, 0, 0, missing), value=fill) if missing else x_BTX  # padding by nothing copies
        return whole_BTX.unflatten(1, (-1, self.block))

    def join(self, y_GJMX: Tensor) -> Tensor:
        """Back to (B, T, X)."""
        return y_GJMX.flatten(1, 2)[:, : self.length]


@dataclass(frozen=True)
class AcrossBatch:
    """Mixture of Tokens (2310.15961, section 3): the M tokens at one position of M sequences are a block.

    The last group may lack sequences, and is filled up.
    """

    sequences: int  # B
    group: int  # M

    def cut(self, x_BTX: Tensor, fill: float = 0.0) -> Tensor:
        """(G, J, M, X) with J = T."""
        missing = -self.sequences % self.group
        whole_BTX = F.pad(x_BTX, (0, 0, 0, 0, 0, missing), value=fill) if missing else x_BTX
        return whole_BTX.unflatten(0, (-1, self.group)).transpose(1, 2)

    def join(self, y_GJMX: Tensor) -> Tensor:
        """Back to (B, T, X)."""
        return y_GJMX.transpose(1, 2).flatten(0, 1)[: self.sequences]


def layout(routing: Routing, sequences: int, length: int, training: bool) -> Blocks | AcrossBatch:
    """Which tokens share their slots. StudyError in training when the sequences do not fill whole groups.

    In evaluation the sequences that are left over mix among themselves, so that any number can be evaluated.
    """
    soft = routing.soft
    if soft.form is SoftForm.ACROSS_BATCH:
        assert soft.group_size is not None  # validated
        if training and sequences % soft.group_size:
            raise StudyError(
                f"{sequences} sequences cannot be mixed in groups of routing.soft.group_size={soft.group_size}; "
                "use a batch size that is a multiple of it"
            )
        return AcrossBatch(sequences, soft.group_size)
    if soft.form is SoftForm.SEQUENCE:
        return Blocks(length, length)
    if soft.form is SoftForm.PREFIX:
        return Blocks(length, 1)
    assert soft.chunk_length is not None  # validated
    return Blocks(length, min(soft.chunk_length, length))


def rows_by_sequence(rows_E: Tensor, view: Blocks | AcrossBatch, sequences: int, length: int) -> Tensor:
    """Rows of each expert, (B, E); those of position t in a group of m are counted at its sequence t mod m."""
    if isinstance(view, Blocks):
        return (rows_E // sequences).expand(sequences, -1)
    sequence_B = torch.arange(sequences, device=rows_E.device)
    member_B = sequence_B % view.group
    members_B = (sequences - (sequence_B - member_B)).clamp(max=view.group)
    positions_B = (length - 1 - member_B).div(members_B, rounding_mode="floor") + 1
    rows_a_position_E = rows_E // (-(-sequences // view.group) * length)
    return positions_B.unsqueeze(1) * rows_a_position_E
