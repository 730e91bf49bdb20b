"""GPT-2 as in nanoGPT, with feed-forward layers that may be mixtures of experts.

Learned positions, pre-LayerNorm, GELU, causal attention through torch's scaled_dot_product_attention, the
output head tied to the token embedding unless the configuration says otherwise. With `document_attention`
attention does not cross an end-of-text token and positions count from 0 again after it, so that what a
document's tokens see is the same wherever it lies in a window; the end-of-text token itself belongs to the
document that it ends.

Shape suffixes: B sequences, T positions (S: positions attended to), D model width, V vocabulary, N rows
(= B * T).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moe_study.design.config import ModelConfig
from moe_study.design.routing import Routing
from moe_study.errors import ConfigError
from moe_study.model.cache import Cache
from moe_study.model.embedding import TokenEmbedding, UntiedHead
from moe_study.model.forward_pass import ONE_PROCESS, ForwardPass, Reducer
from moe_study.model.initialisation import Embedding, initialise
from moe_study.model.loss import cross_entropy, cross_entropy_of_logits
from moe_study.model.moe.build import build_ffn
from moe_study.model.moe.routing.intervention import Intervention
from moe_study.model.transformer import Block, Output, Transformer


class GPT(Transformer):
    """The language model. Its initial parameters are a function of the configuration and `seed` alone.

    `end_of_text` is the token id that ends a document; document_attention needs it (ConfigError without). `dispatch`
    says which implementation runs the experts (run.dispatch).
    """

    def __init__(
        self,
        model: ModelConfig,
        routing: Routing,
        vocab_size: int,
        seed: int = 0,
        end_of_text: int | None = None,
        dispatch: str = "auto",
    ) -> None:
        super().__init__()
        if model.document_attention and end_of_text is None:
            raise ConfigError("model.document_attention=true needs data with an end-of-text token")
        self.context, self.dispatch = model.context, dispatch
        self.end_of_text = end_of_text if model.document_attention else None
        self.token_embedding = TokenEmbedding(vocab_size, model.width, model.embeddings)
        self.position_embedding = Embedding(model.context, model.width)
        self.dropout = nn.Dropout(model.dropout)
        self.blocks = nn.ModuleList(
            Block(model, build_ffn(model, routing, layer, vocab_size)) for layer in range(model.layers)
        )
        self.norm = nn.LayerNorm(model.width, bias=model.bias)
        self.head = None if model.tied_head else UntiedHead(vocab_size, model.width, "token_embedding")
        initialise(self, model, seed)

    @property
    def head_VD(self) -> Tensor:
        """The weights that logits are made by: the token embedding's, where the head is tied to it."""
        return self.token_embedding.weight if self.head is None else self.head.weight

    def begin_step(self, step: int) -> None:
        """Token embeddings, too, may be drawn anew."""
        super().begin_step(step)
        self.token_embedding.begin_step(step)

    def forward(
        self,
        tokens_BT: Tensor,
        targets_BT: Tensor | None = None,
        *,
        label_B: Tensor | None = None,
        detail: bool = False,
        routes: bool = False,
        return_logits: bool = False,
        per_token: bool = False,
        interventions: Mapping[int, Intervention] | None = None,
        reducer: Reducer = ONE_PROCESS,
        cache: Cache | None = None,
    ) -> Output:
        """One pass over whole sequences, T at most the context length; with a cache, over what goes on with them.

        `targets_BT`: next tokens, -1 where there is none; without it there is no loss, and the logits are
        returned. `label_B`: each sequence's language or topic, for routing by label. `detail`: collect
        routing statistics by sequence. `routes`: also where each token goes, as `stats[i].routes`. `per_token`:
        also return every position's loss. `interventions`: by block, what changes the decision that is made there.
        `reducer`: what sums over ranks that train together. `cache`: what earlier passes left behind (model/cache.py).
        """
        if tokens_BT.shape[1] > self.context:
            raise ValueError(f"{tokens_BT.shape[1]} tokens do not fit a context of {self.context}")
        if cache is not None and (routes or interventions):
            raise ValueError("routes and interventions are of whole texts: leave out the cache")
        forward_pass = ForwardPass(
            tokens_BT,
            label_B=label_B,
            detail=detail,
            routes=routes,
            dispatch=self.dispatch,
            interventions=interventions or {},
            reducer=reducer,
            cache=cache,
        )
        x_ND = self._hidden(tokens_BT, forward_pass).flatten(0, 1)
        loss = token_loss_BT = logits_BTV = None
        if return_logits or targets_BT is None:
            logits_NV = F.linear(x_ND, self.head_VD)
            logits_BTV = logits_NV.view(*tokens_BT.shape, -1)
        if targets_BT is not None:
            targets_N = targets_BT.flatten()
            if logits_BTV is not None:
                loss, token_loss_N = cross_entropy_of_logits(logits_NV, targets_N)
            else:
                loss, token_loss_N = cross_entropy(x_ND, self.head_VD, targets_N)
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
        cache = forward_pass.cache
        tokens_BS = tokens_BT if cache is None else cache.begin(tokens_BT)
        positions_TD, mask_B1TS = self._layout(tokens_BS, cache)
        x_BTD = self.dropout(self.token_embedding(tokens_BT) + positions_TD)
        for number, block in enumerate(self.blocks):
            x_BTD = block(x_BTD, mask_B1TS, forward_pass, None if cache is None else cache.past(number))
        if cache is not None:
            cache.end()
        return self.norm(x_BTD)

    def _layout(self, tokens_BS: Tensor, cache: Cache | None) -> tuple[Tensor, Tensor | None]:
        """Position embeddings of the new tokens, (T, D) or (B, T, D), and what each attends to; None: all before it."""
        if self.end_of_text is not None:
            positions_BT, mask_B1TS = document_layout(tokens_BS, self.end_of_text)
            if cache is not None:
                positions_BT, mask_B1TS = cache.of_new(positions_BT), cache.of_new(mask_B1TS.squeeze(1)).unsqueeze(1)
            return self.position_embedding(positions_BT), mask_B1TS
        if cache is None or cache.is_new:
            return self.position_embedding.weight[: tokens_BS.shape[1]], None
        return self.position_embedding(cache.position_BT), cache.not_later_BTS().unsqueeze(1)


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
