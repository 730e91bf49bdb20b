"""A run's configuration as one of transformers: what config.json of an exported mixture holds."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PretrainedConfig

from moe_study.design.causality import why_it_cannot_go_on
from moe_study.design.config import DataConfig, RunConfig, TokenizerConfig, read_record
from moe_study.design.plain import to_plain
from moe_study.design.verdict import Verdict

# What transformers gets where it makes a configuration of nothing, to compare others with.
_DEFAULT = RunConfig(data=DataConfig(tokenizer=TokenizerConfig("bytes")))


class MoeStudyConfig(PretrainedConfig):
    """Which model of this project it is.

    run            the run's whole configuration, plain; a later version of the project reads it as it reads older runs.
                   None: the defaults, of plain bytes
    measured       the verdict that the run measured of its causality, plain; an empty one for none
    labels         what a router by label knows, in the order of its numbers; empty for other routers
    eos_token_id   the end of text

    The other fields repeat of `run` what transformers asks of every model.
    """

    model_type = "moe_study"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012

    def __init__(
        self,
        run: Mapping[str, Any] | None = None,
        measured: Mapping[str, bool] | None = None,
        labels: Sequence[str] = (),
        eos_token_id: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.run = dict(run) if run is not None else to_plain(_DEFAULT)
        self.measured = dict(measured or {})
        self.labels = list(labels)
        config = self.run_config
        repeated = {
            "vocab_size": config.vocab_size,
            "max_position_embeddings": config.model.context,
            "hidden_size": config.model.width,
            "num_hidden_layers": config.model.layers,
            "num_attention_heads": config.model.heads,
            "eos_token_id": eos_token_id,
            "bos_token_id": eos_token_id,
            "pad_token_id": eos_token_id,
        }
        super().__init__(**{"tie_word_embeddings": False, **kwargs, **repeated})

    @property
    def run_config(self) -> RunConfig:
        """The run's configuration, typed."""
        return read_record(self.run)

    @property
    def why_it_cannot_go_on(self) -> str:
        """Why the model cannot generate, as the beginning of a sentence; empty where it can."""
        config = self.run_config
        return why_it_cannot_go_on(config.routing, config.model.context, Verdict(**self.measured))
