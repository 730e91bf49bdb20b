"""Texts of different lengths in one batch: padding goes behind the text, where a model that is causal never reads it.

Shape suffixes: B sequences, T positions, X any further axes.
"""

from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor

from moe_study.errors import StudyError


@dataclass(frozen=True)
class Padding:
    """Where each row's text stands."""

    start_B: Tensor
    length_B: Tensor
    positions: int  # T

    @classmethod
    def of(cls, attention_mask: Tensor | None, tokens_BT: Tensor, past: int) -> Optional["Padding"]:
        """What the mask says of the new tokens; None where they are all text.

        `past`: how many columns of the mask a cache has read. StudyError for padding inside a text or after a cache.
        """
        if attention_mask is None:
            return None
        if attention_mask.ndim != 2 or attention_mask.shape[1] not in (past + tokens_BT.shape[1], tokens_BT.shape[1]):
            raise StudyError("attention_mask must have a number for each token, 0 where it is padding")
        text_BT = attention_mask[:, -tokens_BT.shape[1] :] != 0
        if bool(text_BT.all()):
            return None
        if past:
            raise StudyError("texts that are gone on with cannot be padded; generate from them together, or one by one")
        length_B = text_BT.sum(1)
        start_B = text_BT.long().argmax(1)
        position_T = torch.arange(text_BT.shape[1], device=text_BT.device)
        one_piece_BT = (position_T >= start_B.unsqueeze(1)) & (position_T < (start_B + length_B).unsqueeze(1))
        if not bool((one_piece_BT == text_BT).all()) or not bool(length_B.all()):
            raise StudyError("attention_mask may be 0 before a text or behind it, not inside, and not everywhere")
        return cls(start_B, length_B, text_BT.shape[1])

    @property
    def is_behind(self) -> bool:
        """Whether any text is padded behind it."""
        return bool((self.start_B + self.length_B < self.positions).any())

    def to_front(self, tokens_BT: Tensor) -> Tensor:
        """Every row's text from its position 0 on, in as many positions as the longest needs."""
        column_T = torch.arange(int(self.length_B.max()), device=tokens_BT.device)
        return tokens_BT.gather(1, (self.start_B.unsqueeze(1) + column_T).clamp(max=self.positions - 1))

    def back(self, value_BTX: Tensor) -> Tensor:
        """Where the texts stood before; 0 where there is none."""
        column_BT = torch.arange(self.positions, device=value_BTX.device) - self.start_B.unsqueeze(1)
        is_text_BT = (column_BT >= 0) & (column_BT < self.length_B.unsqueeze(1))
        row_B1 = torch.arange(len(column_BT), device=value_BTX.device).unsqueeze(1)
        moved_BTX = value_BTX[row_B1, column_BT.clamp(0, value_BTX.shape[1] - 1)]
        return moved_BTX * is_text_BT.unsqueeze(-1)
