"""Keeps a function out of torch.compile. To be imported where something is being compiled, and nowhere else: torch's
decorator imports the compiler, which takes longer than all the rest of torch.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")


@torch.compiler.disable
def uncompiled(
    function: Callable[Arguments, Returned], *arguments: Arguments.args, **named: Arguments.kwargs
) -> Returned:
    """What `function` returns, run as it stands, and all that it calls too."""
    return function(*arguments, **named)
