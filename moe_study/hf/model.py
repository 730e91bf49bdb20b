"""A model of this project as transformers' causal language model: it wraps the module that was trained.

Shape suffixes: B sequences, T positions, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from moe_study.design.config import RunConfig
from moe_study.design.plain import to_plain
from moe_study.design.routing import Context
from moe_study.design.verdict import Verdict
from moe_study.errors import StudyError
from moe_study.hf.cache import MoeStudyCache
from moe_study.hf.config import MoeStudyConfig
from moe_study.hf.padding import Padding
from moe_study.model.gpt import GPT
from moe_study.model.moe.routing.router import HashRouter
from moe_study.training.models import build_model

IGNORED = -100  # labels that do not count, as everywhere in transformers


class MoeStudyForCausalLM(PreTrainedModel, GenerationMixin):
    """`config` says which model; weights, and a router's table of token ids, come from the folder's safetensors.

    `generate` is refused with a StudyError where the routing reads later tokens or other sequences of the batch, or
    depends on how many tokens there are. All others generate with a cache, texts of different lengths too.
    """

    config_class = MoeStudyConfig
    base_model_prefix = "gpt"
    main_input_name = "input_ids"
    _supports_sdpa = True
    _no_split_modules = ["Block"]  # noqa: RUF012

    def __init__(self, config: MoeStudyConfig) -> None:
        super().__init__(config)
        gpt = build_model(config.run_config, config.eos_token_id)
        assert isinstance(gpt, GPT)
        self.gpt = gpt
        self._why_not = config.why_it_cannot_go_on
        self._by_label = config.run_config.routing.context is Context.LABEL
        for module in gpt.modules():
            if isinstance(module, HashRouter):  # the folder stands alone: nothing is drawn when it is opened
                module.register_buffer("table_VK", module.table_VK, persistent=True)
        if not any(parameter.is_meta for parameter in gpt.parameters()):
            for tensor in gpt.state_dict(keep_vars=True).values():
                tensor._is_hf_initialized = True  # type: ignore[attr-defined]  # drawn, as transformers marks it
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Called for what a folder has no weights for: the model draws its own only as a whole."""
        tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        for name, tensor in tensors:
            if not getattr(tensor, "_is_hf_initialized", False):
                raise StudyError(f"the folder has no weights for {type(module).__name__}.{name}; export the run again")

    def get_input_embeddings(self) -> nn.Module:
        return self.gpt.token_embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.gpt.token_embedding = value  # type: ignore[assignment]

    def get_output_embeddings(self) -> nn.Module | None:
        """None where the head is the token embedding itself."""
        return self.gpt.head

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: MoeStudyCache | None = None,
        label_ids: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        return_dict: bool | None = None,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Logits (B, T, V) of `input_ids` (B, T).

        `attention_mask`: 0 where a text is padded, before it or behind it. `label_ids` (B,): what a router by label is
        told. `labels`: targets as `input_ids`, -100 where there is none; the loss is the language model's alone.
        `use_cache`: also give back what it takes to go on, as `past_key_values`. `logits_to_keep`: only the last ones.
        """
        cache = self._cache(past_key_values) if past_key_values is not None or use_cache else None
        if cache is not None:
            self._check_generates()
        padding = Padding.of(attention_mask, input_ids, 0 if cache is None else cache.get_seq_length())
        if padding is not None:
            self._check_padding(padding, goes_on=cache is not None or logits_to_keep > 0)
        tokens_BT = input_ids if padding is None else padding.to_front(input_ids)
        self._check_fits(tokens_BT.shape[1], cache)
        state = None if cache is None else cache.state_for(self.gpt.context, padding)
        logits_BTV = self.gpt(tokens_BT, label_B=self._label_ids(label_ids), cache=state).logits_BTV
        assert logits_BTV is not None
        if padding is not None:
            logits_BTV = padding.back(logits_BTV)
        if cache is not None:
            cache.add(input_ids.shape[1])
        output = CausalLMOutputWithPast(
            loss=None if labels is None else _loss(logits_BTV, labels),
            logits=logits_BTV[:, -logits_to_keep:],
            past_key_values=cache,
        )
        return output.to_tuple() if return_dict is False else output

    def generate(self, *arguments: Any, **named: Any) -> Any:
        """As transformers' own, for routings that can; StudyError for the others, and beyond the model's context."""
        self._check_generates()
        return super().generate(*arguments, **named)  # type: ignore[misc]

    def prepare_inputs_for_generation(  # type: ignore[override]  # versions differ in its arguments
        self,
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        past_key_values: MoeStudyCache | None = None,
        **kwargs: Any,  # so named, transformers lets callers give whatever `forward` takes
    ) -> dict[str, Any]:
        """What `forward` is given for the next token: of the texts so far, what the cache has not read.

        Versions of transformers differ in what else they pass, and in whether they say how many tokens that is.
        """
        seen = 0 if past_key_values is None else past_key_values.get_seq_length()
        new_BT = input_ids[:, seen:] if next_sequence_length is None else input_ids[:, -next_sequence_length:]
        given = {"input_ids": new_BT, "past_key_values": past_key_values} | {
            name: kwargs.get(name) for name in ("attention_mask", "label_ids", "use_cache")
        }
        on_device = {name: _moved(value, self.device) for name, value in given.items()}
        return on_device | {"logits_to_keep": kwargs.get("logits_to_keep", 0)}

    def _prepare_cache_for_generation(  # type: ignore[override]  # as above
        self, generation_config: Any, model_kwargs: dict[str, Any], *_: Any
    ) -> None:
        """The cache of this model, which knows more than keys and values, whatever kind was asked for."""
        if generation_config.use_cache is not False:
            model_kwargs["past_key_values"] = self._cache(model_kwargs.get("past_key_values"))

    def _validate_generated_length(self, generation_config: Any, input_ids_length: int, *others: Any) -> None:
        """Before anything is generated, rather than when the context is full."""
        if generation_config.max_length > self.gpt.context:
            raise StudyError(
                f"the model reads at most {self.gpt.context} tokens: after a prompt of {input_ids_length}, ask for"
                f" at most {max(0, self.gpt.context - input_ids_length)} new ones (max_new_tokens)"
            )
        super()._validate_generated_length(generation_config, input_ids_length, *others)  # type: ignore[misc]

    def _check_generates(self) -> None:
        if self._why_not:
            raise StudyError(f"{self._why_not}, so it cannot generate, where tokens come one after another")

    def _check_padding(self, padding: Padding, goes_on: bool) -> None:
        if self._why_not:
            raise StudyError(f"{self._why_not}, so padding would change what it says; give texts of one length")
        if goes_on and padding.is_behind:
            raise StudyError("a text is gone on with at its end, so pad before it (padding_side='left')")

    def _check_fits(self, tokens: int, cache: MoeStudyCache | None) -> None:
        tokens += 0 if cache is None else cache.longest
        if tokens > self.gpt.context:
            raise StudyError(f"the model reads at most {self.gpt.context} tokens, and was given {tokens}; cut the text")

    def _cache(self, given: Any) -> MoeStudyCache:
        if isinstance(given, MoeStudyCache):
            return given
        if given is not None and given.get_seq_length() > 0:
            raise StudyError("past_key_values must be what this model gave back; leave it out to begin a text")
        return MoeStudyCache()

    def _label_ids(self, label_ids: Tensor | None) -> Tensor | None:
        if label_ids is None and self._by_label:
            known = ", ".join(f"{number} {label}" for number, label in enumerate(self.config.labels))
            raise StudyError(f"the router is told each text's label: give label_ids, a number for each text ({known})")
        return label_ids


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value


def _loss(logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:
    """Mean loss of the next tokens, nats per token."""
    return F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), labels_BT[:, 1:].flatten(), ignore_index=IGNORED)


def as_moe_study(
    gpt: GPT, config: RunConfig, end_of_text: int, measured: Verdict, labels: list[str]
) -> MoeStudyForCausalLM:
    """The trained model as one of transformers, in evaluation mode.

    `config` is kept in config.json as it is. `measured` is what the run found of its causality, `labels` what a router
    by label was trained on.
    """
    described = MoeStudyConfig(to_plain(config), to_plain(measured), labels, end_of_text)
    model = MoeStudyForCausalLM(described)
    weights = model.gpt.state_dict()  # a hash router's table, too, which the trained model does not save
    model.gpt.load_state_dict(weights | gpt.state_dict())
    return model.eval()
