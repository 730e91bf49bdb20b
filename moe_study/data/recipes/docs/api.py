"""Descriptions of web services, as their makers' Python clients carry them: JSON, in it prose as HTML or plain."""

import json
from collections.abc import Iterator
from typing import Any

from moe_study.data.recipes.docs.markup import paragraphs
from moe_study.errors import DataError

_PROSE = ("documentation", "description")
_DEEPEST = 60


def api_paragraphs(content: bytes) -> Iterator[str]:
    """All documentation in a service's description, each sentence of it once: names of parts repeat them."""
    try:
        described = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"a service's description is not JSON ({error})") from None
    for text in dict.fromkeys(_prose(described, 0)):
        yield from paragraphs(text) if "<" in text else text.split("\n\n")


def _prose(node: Any, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        return
    if isinstance(node, dict):
        for name, value in node.items():
            if name in _PROSE and isinstance(value, str):
                yield value
            else:
                yield from _prose(value, depth + 1)
    elif isinstance(node, list):
        for value in node:
            yield from _prose(value, depth + 1)
