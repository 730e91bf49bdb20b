"""A small vision transformer (Dosovitskiy et al., 2010.11929) whose blocks are GPT's, without the causal mask.

Patches are embedded by one linear layer, positions are learned, and a linear head reads the mean over all
positions of the last block's normalised output. There is no class token: every position is a patch, so that a
soft layer's slots average nothing but patches.

Shape suffixes: B images, H height, W width, T patches (positions), D model width, P pixels of a patch, C classes.
"""

import torch
from torch import Tensor, nn

from moe_study.design.config import ModelConfig
from moe_study.design.routing import Routing
from moe_study.model.forward_pass import ONE_PROCESS, ForwardPass, Reducer
from moe_study.model.initialisation import Embedding, Linear, initialise
from moe_study.model.loss import cross_entropy_of_logits
from moe_study.model.moe.build import build_ffn
from moe_study.model.transformer import Block, Output, Transformer

LARGEST = 255  # of a pixel


class ViT(Transformer):
    """Tells the class of an image. Its initial parameters are a function of the configuration and `seed` alone.

    `model.context` patches of `model.patch` pixels along the edge make an image. A hash router takes the
    patch's position for the token id. `dispatch` says which implementation runs the experts (run.dispatch).
    """

    def __init__(
        self, model: ModelConfig, routing: Routing, classes: int, seed: int = 0, dispatch: str = "auto"
    ) -> None:
        super().__init__()
        assert model.patch is not None  # validated
        self.patch, self.dispatch = model.patch, dispatch
        self.patch_embedding = Linear(model.patch**2, model.width, bias=model.bias)
        self.position_embedding = Embedding(model.context, model.width)
        self.dropout = nn.Dropout(model.dropout)
        self.blocks = nn.ModuleList(
            Block(model, build_ffn(model, routing, layer, vocab_size=model.context), causal=False)
            for layer in range(model.layers)
        )
        self.norm = nn.LayerNorm(model.width, bias=model.bias)
        self.head = Linear(model.width, classes, bias=model.bias)
        initialise(self, model, seed)

    def forward(
        self,
        images_BHW: Tensor,
        targets_B1: Tensor | None = None,
        *,
        label_B: Tensor | None = None,
        detail: bool = False,
        return_logits: bool = False,
        per_token: bool = False,
        reducer: Reducer = ONE_PROCESS,
    ) -> Output:
        """One pass over whole images (uint8, 0 to 255). Called as GPT is, an image being a window with one target.

        `targets_B1`: the class, -1 where there is none; without it there is no loss, and the logits (B, 1, C)
        are returned. `per_token`: also return every image's loss, and whether it was told rightly.
        """
        patches_BTP = cut(images_BHW, self.patch).to(self.head.weight.dtype) / LARGEST
        positions_T = torch.arange(patches_BTP.shape[1], device=images_BHW.device)
        positions_BT = positions_T.expand(patches_BTP.shape[:2])
        forward_pass = ForwardPass(
            positions_BT, label_B=label_B, detail=detail, dispatch=self.dispatch, reducer=reducer
        )
        x_BTD = self.dropout(self.patch_embedding(patches_BTP) + self.position_embedding.weight)
        for block in self.blocks:
            x_BTD = block(x_BTD, None, forward_pass)
        logits_BC = self.head(self.norm(x_BTD).mean(1))
        output = Output(
            loss=None,
            aux_loss=forward_pass.total_aux_loss(),
            aux={name: torch.stack(values).sum() for name, values in forward_pass.aux.items()},
            stats=forward_pass.stats,
            logits_BTV=logits_BC.unsqueeze(1) if return_logits or targets_B1 is None else None,
            token_loss_BT=None,
        )
        if targets_B1 is not None:
            output.loss, loss_B = cross_entropy_of_logits(logits_BC, targets_B1.flatten())
            if per_token:
                output.token_loss_BT = loss_B.unsqueeze(1)
                output.correct_BT = logits_BC.argmax(1, keepdim=True) == targets_B1
        return output


def cut(images_BHW: Tensor, patch: int) -> Tensor:
    """Images as patches, row by row: (B, T, P)."""
    blocks = images_BHW.unflatten(2, (-1, patch)).unflatten(1, (-1, patch))  # B, rows, patch, columns, patch
    return blocks.transpose(2, 3).flatten(3).flatten(1, 2)
