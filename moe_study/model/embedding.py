"""What the language model reads tokens as, and the output head that is not tied to it."""

from moe_study.design.config import Embeddings
from moe_study.model.initialisation import Embedding, Initialiser, Linear


class TokenEmbedding(Embedding):
    """A vector for each token, (V, D).

    Frozen embeddings keep their initial values. Redrawn ones get new values at every training step, from a stream
    keyed by the step, as redrawn routers do; evaluation uses those of the last step begun.
    """

    def __init__(self, vocab_size: int, width: int, state: Embeddings) -> None:
        super().__init__(vocab_size, width)
        self.state = state
        self.requires_grad_(state is Embeddings.LEARNED)
        self._init: tuple[Initialiser, str] | None = None

    def initialise(self, init: Initialiser, prefix: str) -> None:
        self._init = init, prefix
        init.normal_(self.weight, f"{prefix}.weight")

    def begin_step(self, step: int) -> None:
        if self.state is Embeddings.REDRAWN and self._init is not None:
            init, prefix = self._init
            init.normal_(self.weight.data, f"{prefix}/step {step}.weight")


class UntiedHead(Linear):
    """Logits by weights of their own, (V, D), which start as those of a tied head would: equal to `embedding`'s.

    So runs of one seed begin as the same function, tied or not.
    """

    def __init__(self, vocab_size: int, width: int, embedding: str) -> None:
        super().__init__(width, vocab_size, bias=False)
        self.embedding = embedding  # its name in the model

    def initialise(self, init: Initialiser, prefix: str) -> None:
        init.normal_(self.weight, f"{self.embedding}.weight")
