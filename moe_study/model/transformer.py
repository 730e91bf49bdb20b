"""Pre-LayerNorm transformer blocks, and what every model made of them can do.

Shape suffixes: B sequences, T positions (S: positions attended to), D model width, H heads, d width of a
head, V vocabulary or classes.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from moe_study.design.config import ModelConfig
from moe_study.model.cache import Past
from moe_study.model.forward_pass import ONE_PROCESS, ForwardPass, Reducer, RoutingStats
from moe_study.model.initialisation import Linear


@dataclass
class Output:
    """What one forward pass gives back."""

    loss: Tensor | None  # mean cross-entropy alone, nats per token (or image)
    aux_loss: Tensor  # weighted sum of all balancing terms: add it to `loss` for training
    aux: dict[str, Tensor]  # each balancing term, unweighted, summed over layers
    stats: list[RoutingStats]  # one for each mixture layer
    logits_BTV: Tensor | None
    token_loss_BT: Tensor | None  # detached; 0 where the target is ignored
    correct_BT: Tensor | None = None  # whether the most probable answer was right; where that is of interest


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, model: ModelConfig, causal: bool = True) -> None:
        super().__init__()
        self.causal = causal
        self.heads = model.heads
        self.dropout_rate = model.dropout
        self.qkv = Linear(model.width, 3 * model.width, bias=model.bias)
        self.out = Linear(model.width, model.width, bias=model.bias, residual=True)
        self.dropout = nn.Dropout(model.dropout)

    def forward(self, x_BTD: Tensor, mask_B1TS: Tensor | None, past: Past | None = None) -> Tensor:
        """`mask_B1TS` says what may be attended to, causality included; None: everything, or all that is not later.

        `past`: keys and values of earlier tokens, which are attended to as well (S positions); those of x join them.
        """
        q_BTD, k_BTD, v_BTD = self.qkv(x_BTD).chunk(3, -1)
        if past is not None:
            k_BTD, v_BTD = past.keys.extend(k_BTD), past.values.extend(v_BTD)
        q_BHTd, k_BHTd, v_BHTd = (
            part_BTD.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part_BTD in (q_BTD, k_BTD, v_BTD)
        )
        y_BHTd = F.scaled_dot_product_attention(
            q_BHTd,
            k_BHTd,
            v_BHTd,
            attn_mask=mask_B1TS,
            dropout_p=self.dropout_rate if self.training else 0.0,
            is_causal=self.causal and mask_B1TS is None,
        )
        return self.dropout(self.out(y_BHTd.transpose(1, 2).flatten(2)))


class Block(nn.Module):
    """Attention and a feed-forward part, each normalised before and added to the residual stream."""

    def __init__(self, model: ModelConfig, ffn: nn.Module, causal: bool = True) -> None:
        super().__init__()
        self.norm_attn = nn.LayerNorm(model.width, bias=model.bias)
        self.attn = Attention(model, causal)
        self.norm_ffn = nn.LayerNorm(model.width, bias=model.bias)
        self.ffn = ffn

    def forward(
        self, x_BTD: Tensor, mask_B1TS: Tensor | None, forward_pass: ForwardPass, past: Past | None = None
    ) -> Tensor:
        x_BTD = x_BTD + self.attn(self.norm_attn(x_BTD), mask_B1TS, past)
        return x_BTD + self.ffn(self.norm_ffn(x_BTD), forward_pass)


class Transformer(nn.Module):
    """A model with `blocks`: what training and accounting need to know of it."""

    blocks: nn.ModuleList

    def begin_step(self, step: int) -> None:
        """To be called before the forward passes of training step `step` (routers that are drawn anew)."""
        for block in self.blocks:
            if hook := getattr(block.ffn, "begin_step", None):
                hook(step)

    def end_step(self, reducer: Reducer = ONE_PROCESS) -> None:
        """To be called after the optimizer's step (state that is updated outside the gradient)."""
        for block in self.blocks:
            if hook := getattr(block.ffn, "end_step", None):
                hook(reducer)

    def decay_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Trained parameters with and without weight decay: weights of two or more axes decay, biases do not.

        Stacked biases of experts have two axes and are known by "bias" in the last part of their name.
        """
        decay: list[nn.Parameter] = []
        no_decay: list[nn.Parameter] = []
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                is_weight = parameter.ndim >= 2 and "bias" not in name.rpartition(".")[2]
                (decay if is_weight else no_decay).append(parameter)
        return decay, no_decay

    def num_parameters(self) -> int:
        """All parameters, trained or not; an embedding that is also the head counts once."""
        return sum(parameter.numel() for parameter in self.parameters())
