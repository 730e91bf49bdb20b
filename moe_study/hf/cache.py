"""The model's own cache (model/cache.py) in the clothes that transformers' generation expects."""

from torch import Tensor
from transformers import Cache as TransformersCache

from moe_study.hf.padding import Padding
from moe_study.model.cache import Cache


class MoeStudyCache(TransformersCache):
    """What a model gives back as `past_key_values`; it goes on with the same batch of texts, beams included.

    transformers counts columns, padding before the texts included; the state inside counts each row's own tokens.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.state: Cache | None = None
        self.columns = 0

    @property
    def longest(self) -> int:
        """Tokens of the longest text so far."""
        return 0 if self.state is None else self.state.seen

    def state_for(self, context: int, padding: Padding | None) -> Cache:
        """The state to read the next tokens with."""
        if self.state is None:
            self.state = Cache(context, None if padding is None else padding.length_B)
        return self.state

    def add(self, columns: int) -> None:
        """Count what was read."""
        self.columns += columns

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.columns

    def get_max_length(self, layer_idx: int | None = None) -> int:
        return -1 if self.state is None else self.state.context

    def reorder_cache(self, beam_idx: Tensor) -> None:
        if self.state is not None:
            self.state.choose(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        self.reorder_cache(indices)

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens, their number given with a minus; without one, as in older versions, keep so many."""
        tokens = -tokens_to_remove if tokens_to_remove <= 0 else max(0, self.columns - tokens_to_remove)
        self.columns -= tokens
        if self.state is not None:
            self.state.forget(tokens)

    def reset(self) -> None:
        self.state, self.columns = None, 0
