"""GPT-2's forward pass in plain loops over positions and heads, numpy float64, nothing shared with the package."""

import math

import numpy as np
from numpy.typing import NDArray

Weights = dict[str, NDArray[np.float64]]
Vector = NDArray[np.float64]


def logits(
    weights: Weights, tokens: list[int], layers: int, heads: int, end_of_text: int | None
) -> NDArray[np.float64]:
    """Logits (T, V) of one sequence; with `end_of_text`, every document is worked through by itself."""
    documents: list[list[int]] = [[]]
    for token in tokens:
        documents[-1].append(token)
        if end_of_text is not None and token == end_of_text:
            documents.append([])
    return np.concatenate([_document(weights, document, layers, heads) for document in documents if document])


def _document(w: Weights, tokens: list[int], layers: int, heads: int) -> NDArray[np.float64]:
    embedding = w["token_embedding.weight"]
    stream = [embedding[token] + w["position_embedding.weight"][i] for i, token in enumerate(tokens)]
    for layer in range(layers):
        part = {k.removeprefix(f"blocks.{layer}."): v for k, v in w.items() if k.startswith(f"blocks.{layer}.")}
        stream = _block(part, stream, heads)
    head = w.get("head.weight", embedding)
    return np.array([head @ _norm(w, "norm", x) for x in stream])


def _block(w: Weights, stream: list[Vector], heads: int) -> list[Vector]:
    attended = _attention(w, [_norm(w, "norm_attn", x) for x in stream], heads)
    stream = [x + a for x, a in zip(stream, attended, strict=True)]
    out = []
    for x in stream:
        hidden = _affine(w, "ffn.up", _norm(w, "norm_ffn", x))
        active = np.array([0.5 * h * (1 + math.erf(h / math.sqrt(2))) for h in hidden])
        out.append(x + _affine(w, "ffn.down", active))
    return out


def _attention(w: Weights, inputs: list[Vector], heads: int) -> list[Vector]:
    width = len(inputs[0])
    size = width // heads
    qkv = [_affine(w, "attn.qkv", x) for x in inputs]
    out = []
    for i in range(len(inputs)):
        mixed = np.zeros(width)
        for head in range(heads):
            at = slice(head * size, (head + 1) * size)
            scores = [qkv[i][:width][at] @ qkv[j][width : 2 * width][at] / math.sqrt(size) for j in range(i + 1)]
            powers = np.exp(np.array(scores) - max(scores))
            for j, weight in enumerate(powers / powers.sum()):
                mixed[at] += weight * qkv[j][2 * width :][at]
        out.append(_affine(w, "attn.out", mixed))
    return out


def _affine(w: Weights, name: str, x: Vector) -> Vector:
    return w[f"{name}.weight"] @ x + w.get(f"{name}.bias", np.zeros(1))


def _norm(w: Weights, name: str, x: Vector) -> Vector:
    deviation = x - x.mean()
    scaled = deviation / math.sqrt((deviation**2).mean() + 1e-5)
    return scaled * w[f"{name}.weight"] + w.get(f"{name}.bias", np.zeros(1))
