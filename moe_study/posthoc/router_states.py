"""What the routers of a trained model read: hidden states of the first documents of a probe, layer by layer.

    states = router_states(Tracer.of(folder), probe, label_D, tokens=50_000)     {layer: [T, H]}

Shapes: T tokens, D documents, H width; B windows of L tokens.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from moe_study.analysis.specialisation.layer_trace import documents_with
from moe_study.data.probes import Probe
from moe_study.data.probes.base import Array
from moe_study.design.routing import Routing
from moe_study.model.moe.base import MixtureOfExperts
from moe_study.model.moe.routing.context import states_of_tokens
from moe_study.posthoc.trace import Tracer


def router_states(tracer: Tracer, probe: Probe, label_D: Array, tokens: int) -> dict[int, Array]:
    """What the decision for each token read, by mixture layer, float16 [T, H]; none for a model without experts.

    Of the documents that `layer_trace.first_documents` takes. `label_D` is what a router by label is told.
    """
    documents = documents_with(probe.start_D1, tokens)
    found: dict[int, Array] = {}
    with states_read(tracer.model, tracer.config.routing) as read:
        for index_BL, target_BL, document_B in tracer.batches(probe, 0, documents):
            token_BL = torch.from_numpy(probe.token_T[index_BL].astype(np.int64))
            tracer.read(token_BL, torch.from_numpy(target_BL), torch.from_numpy(label_D[document_B]))
            for layer, states_BLH in read.items():
                if layer not in found:
                    shape = int(probe.start_D1[documents]), states_BLH.shape[-1]
                    found[layer] = np.empty(shape, np.float16)  # of a normalised state, and half the memory
                found[layer][index_BL] = states_BLH.float().cpu().numpy()
    return found


@contextlib.contextmanager
def states_read(model: nn.Module, routing: Routing) -> Iterator[dict[int, Tensor]]:
    """Inside, each forward pass leaves by mixture layer what its decisions read of the hidden states (B, L, H).

    With scope=global that is what the deciding layer has read, for all that follow it.
    """
    layers = [module for module in model.modules() if isinstance(module, MixtureOfExperts)]
    read: dict[int, Tensor] = {}

    def keep(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        assert isinstance(layer, MixtureOfExperts)
        read[layer.layer] = states_of_tokens(inputs[0], routing) if layer.decides else read[layers[0].layer]

    hooks = [layer.register_forward_pre_hook(keep) for layer in layers]
    try:
        yield read
    finally:
        for hook in hooks:
            hook.remove()
