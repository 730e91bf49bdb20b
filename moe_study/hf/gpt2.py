"""Dense models as GPT2LMHeadModel, which transformers opens without this project.

Both are the same network: learned positions, pre-LayerNorm, exact GELU, a head tied to the embeddings or not.
GPT2LMHeadModel has all biases, so those that a model lacks are zeros, and its products hold their weights transposed
(Conv1D).
"""

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from moe_study.design.config import RunConfig
from moe_study.design.routing import Selection, expert_hidden
from moe_study.model.gpt import GPT
from moe_study.model.mlp import MLP
from moe_study.model.transformer import Block


def fits_gpt2(config: RunConfig) -> bool:
    """Whether the model is a plain GPT-2: no mixture, and attention over the whole window."""
    return config.routing.selection is Selection.DENSE and not config.model.document_attention


def as_gpt2(gpt: GPT, config: RunConfig, end_of_text: int) -> GPT2LMHeadModel:
    """The same weights as GPT2LMHeadModel, in evaluation mode; `config` is the run's and fits."""
    assert fits_gpt2(config)
    sizes, dropout = config.model, config.model.dropout
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=sizes.context,
            n_embd=sizes.width,
            n_layer=sizes.layers,
            n_head=sizes.heads,
            n_inner=expert_hidden(config.routing, sizes.hidden),
            activation_function="gelu",
            layer_norm_epsilon=gpt.norm.eps,
            tie_word_embeddings=sizes.tied_head,
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=dropout,
            bos_token_id=end_of_text,
            eos_token_id=end_of_text,
            pad_token_id=end_of_text,
        )
    )
    model.load_state_dict(gpt2_weights(gpt))
    return model.eval()


def gpt2_weights(gpt: GPT) -> dict[str, Tensor]:
    """The weights under GPT2LMHeadModel's names."""
    weights = {
        "transformer.wte.weight": gpt.token_embedding.weight.detach(),
        "lm_head.weight": gpt.head_VD.detach(),
        "transformer.wpe.weight": gpt.position_embedding.weight.detach(),
        **_norm("transformer.ln_f", gpt.norm),
    }
    for number, block in enumerate(gpt.blocks):
        assert isinstance(block, Block) and isinstance(block.ffn, MLP)
        name = f"transformer.h.{number}"
        weights |= _norm(f"{name}.ln_1", block.norm_attn) | _norm(f"{name}.ln_2", block.norm_ffn)
        weights |= _product(f"{name}.attn.c_attn", block.attn.qkv) | _product(f"{name}.attn.c_proj", block.attn.out)
        weights |= _product(f"{name}.mlp.c_fc", block.ffn.up) | _product(f"{name}.mlp.c_proj", block.ffn.down)
    return weights


def _norm(name: str, norm: nn.LayerNorm) -> dict[str, Tensor]:
    return {f"{name}.weight": norm.weight.detach(), f"{name}.bias": _bias(norm.bias, norm.weight)}


def _product(name: str, linear: nn.Linear) -> dict[str, Tensor]:
    weight_OI = linear.weight.detach()
    return {f"{name}.weight": weight_OI.T.contiguous(), f"{name}.bias": _bias(linear.bias, weight_OI[:, 0])}


def _bias(bias: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if bias is None else bias.detach()
