"""GPT-2 as in nanoGPT, with feed-forward layers that may be mixtures of experts.

Learned positions, pre-LayerNorm, GELU, causal attention through torch's scaled_dot_product_attention, the
output head tied to the token embedding. With `document_attention` attention does not cross an end-of-text
token and positions count from 0 again after it, so that what a document's tokens see is the same wherever it
lies in a window; the end-of-text token itself belongs to the document that it ends.

Shape suffixes: B sequences, T positions (S: positions attended to), D model width, H heads, d width of a
head, V vocabulary, N rows (= B * T).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moe_study.config import ModelConfig
from moe_study.design.routing import Routing
from moe_study.errors import ConfigError
from moe_study.model.ffn import build_ffn
from moe_study.model.forward_pass import ForwardPass, RoutingStats
from moe_study.model.initialisation import Embedding, initialise
from moe_study.model.linear import Linear, linear
from moe_study.model.loss import cross_entropy, cross_entropy_of_logits


@dataclass
class Output:
    """What one forward pass gives back."""

    loss: Tensor | None  # mean cross-entropy of the language model alone, nats per token
    aux_loss: Tensor  # weighted sum of all balancing terms: add it to `loss` for training
    aux: dict[str, Tensor]  # each balancing term, unweighted, summed over layers
    stats: list[RoutingStats]  # one for each mixture layer
    logits_BTV: Tensor | None
    token_loss_BT: Tensor | None  # detached; 0 where the target is ignored


class Attention(nn.Module):
    """Causal multi-head self-attention."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.heads = model.heads
        self.dropout_rate = model.dropout
        self.qkv = Linear(model.width, 3 * model.width, bias=model.bias)
        self.out = Linear(model.width, model.width, bias=model.bias, residual=True)
        self.dropout = nn.Dropout(model.dropout)

    def forward(self, x_BTD: Tensor, mask_B1TS: Tensor | None) -> Tensor:
        """`mask_B1TS` says what may be attended to, causality included; None: all that is not later."""
        q_BTD, k_BTD, v_BTD = self.qkv(x_BTD).chunk(3, -1)
        q_BHTd, k_BHTd, v_BHTd = (
            part_BTD.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part_BTD in (q_BTD, k_BTD, v_BTD)
        )
        y_BHTd = F.scaled_dot_product_attention(
            q_BHTd,
            k_BHTd,
            v_BHTd,
            attn_mask=mask_B1TS,
            dropout_p=self.dropout_rate if self.training else 0.0,
            is_causal=mask_B1TS is None,
        )
        return self.dropout(self.out(y_BHTd.transpose(1, 2).flatten(2)))


class Block(nn.Module):
    """Attention and a feed-forward part, each normalised before and added to the residual stream."""

    def __init__(self, model: ModelConfig, ffn: nn.Module) -> None:
        super().__init__()
        self.norm_attn = nn.LayerNorm(model.width, bias=model.bias)
        self.attn = Attention(model)
        self.norm_ffn = nn.LayerNorm(model.width, bias=model.bias)
        self.ffn = ffn

    def forward(self, x_BTD: Tensor, mask_B1TS: Tensor | None, forward_pass: ForwardPass) -> Tensor:
        x_BTD = x_BTD + self.attn(self.norm_attn(x_BTD), mask_B1TS)
        return x_BTD + self.ffn(self.norm_ffn(x_BTD), forward_pass)


class GPT(nn.Module):
    """The language model. Its initial parameters are a function of the configuration and `seed` alone.

    `end_of_text` is the token id that ends a document; document_attention needs it (ConfigError without).
    """

    def __init__(
        self,
        model: ModelConfig,
        routing: Routing,
        vocab_size: int,
        seed: int = 0,
        end_of_text: int | None = None,
    ) -> None:
        super().__init__()
        if model.document_attention and end_of_text is None:
            raise ConfigError("model.document_attention=true needs data with an end-of-text token")
        self.context = model.context
        self.end_of_text = end_of_text if model.document_attention else None
        self.token_embedding = Embedding(vocab_size, model.width)  # and the output head
        self.position_embedding = Embedding(model.context, model.width)
        self.dropout = nn.Dropout(model.dropout)
        self.blocks = nn.ModuleList(
            Block(model, build_ffn(model, routing, layer, vocab_size)) for layer in range(model.layers)
        )
        self.norm = nn.LayerNorm(model.width, bias=model.bias)
        initialise(self, model.layers, seed)

    def forward(
        self,
        tokens_BT: Tensor,
        targets_BT: Tensor | None = None,
        *,
        label_B: Tensor | None = None,
        detail: bool = False,
        return_logits: bool = False,
        per_token: bool = False,
    ) -> Output:
        """One pass over whole sequences, T at most the context length.

        `targets_BT`: next tokens, -1 where there is none; without it there is no loss, and the logits are
        returned. `label_B`: each sequence's language or topic, for routing by label. `detail`: collect
        routing statistics by sequence. `per_token`: also return every position's loss.
        """
        if tokens_BT.shape[1] > self.context:
            raise ValueError(f"{tokens_BT.shape[1]} tokens do not fit a context of {self.context}")
        forward_pass = ForwardPass(tokens_BT, label_B=label_B, detail=detail)
        x_ND = self._hidden(tokens_BT, forward_pass).flatten(0, 1)
        loss = token_loss_BT = logits_BTV = None
        if return_logits or targets_BT is None:
            logits_NV = linear(x_ND, self.token_embedding.weight)
            logits_BTV = logits_NV.view(*tokens_BT.shape, -1)
        if targets_BT is not None:
            targets_N = targets_BT.flatten()
            if logits_BTV is not None:
                loss, token_loss_N = cross_entropy_of_logits(logits_NV, targets_N)
            else:
                loss, token_loss_N = cross_entropy(x_ND, self.token_embedding.weight, targets_N)
            token_loss_BT = token_loss_N.view_as(targets_BT) if per_token else None
        return Output(
            loss=loss,
            aux_loss=forward_pass.total_aux_loss(),
            aux={name: torch.stack(values).sum() for name, values in forward_pass.aux.items()},
            stats=forward_pass.stats,
            logits_BTV=logits_BTV,
            token_loss_BT=token_loss_BT,
        )

    def _hidden(self, tokens_BT: Tensor, forward_pass: ForwardPass) -> Tensor:
        """Normalised hidden states after the last block, (B, T, D)."""
        if self.end_of_text is None:
            mask_B1TS = None
            positions_TD = self.position_embedding.weight[: tokens_BT.shape[1]]
            x_BTD = self.token_embedding(tokens_BT) + positions_TD
        else:
            positions_BT, mask_B1TS = document_layout(tokens_BT, self.end_of_text)
            x_BTD = self.token_embedding(tokens_BT) + self.position_embedding(positions_BT)
        x_BTD = self.dropout(x_BTD)
        for block in self.blocks:
            x_BTD = block(x_BTD, mask_B1TS, forward_pass)
        return self.norm(x_BTD)

    def begin_step(self, step: int) -> None:
        """To be called before the forward passes of training step `step` (routers that are drawn anew)."""
        for block in self.blocks:
            if hook := getattr(block.ffn, "begin_step", None):
                hook(step)

    def end_step(self) -> None:
        """To be called after the optimizer's step (state that is updated outside the gradient)."""
        for block in self.blocks:
            if hook := getattr(block.ffn, "end_step", None):
                hook()

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
        """All parameters, trained or not; the embedding that is also the head counts once."""
        return sum(parameter.numel() for parameter in self.parameters())


def document_layout(tokens_BT: Tensor, end_of_text: int) -> tuple[Tensor, Tensor]:
    """Positions counted from each document's start (B, T), and what each may attend to (B, 1, T, S)."""
    time_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
    ends_BT = tokens_BT == end_of_text
    # The end-of-text token counts to what it ends. A window may begin inside a document: that is document 0.
    document_BT = ends_BT.cumsum(1) - ends_BT.long()
    starts_BT = F.pad(ends_BT[:, :-1], (1, 0))
    start_BT = (time_T * starts_BT).cummax(1).values
    same_BTS = document_BT.unsqueeze(2) == document_BT.unsqueeze(1)
    causal_TS = time_T.unsqueeze(1) >= time_T
    return time_T - start_BT, (same_BTS & causal_TS).unsqueeze(1)
