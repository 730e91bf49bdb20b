"""Our models as transformers' own: what is saved opens as it was, and generates where its routing can.

What is generated is compared with a loop of whole passes of our own module, in float64.
"""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from moe_study.design.causality import why_it_cannot_go_on
from moe_study.design.config import Embeddings, RunConfig
from moe_study.design.verdict import CAUSAL, OWN_FUTURE
from moe_study.errors import StudyError
from moe_study.model.gpt import GPT
from moe_study.sweeps.compose import Composer
from tests.hf.models import END, ROUTINGS, labels, lengths_of, small_config, small_model, texts

pytestmark = pytest.mark.long
LABELS = ["de", "en", "es"]
PROMPT = 3


def saved(hf: ModuleType, gpt: GPT, config: RunConfig, folder: Path) -> Path:
    hf.as_moe_study(gpt, config, END, CAUSAL, LABELS).save_pretrained(folder)
    return folder


def opened(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def logits_of(gpt: GPT, tokens_BT: Tensor) -> Tensor:
    with torch.no_grad():
        logits_BTV = gpt(tokens_BT, label_B=labels(len(tokens_BT))).logits_BTV
    assert logits_BTV is not None
    return logits_BTV


def given(tokens_BT: Tensor) -> dict[str, Tensor]:
    return {"input_ids": tokens_BT, "label_ids": labels(len(tokens_BT))}


def continued(gpt: GPT, tokens_BT: Tensor, length: int) -> Tensor:
    """The most probable texts of `length` tokens that begin so, without an end; one whole pass for each token."""
    while tokens_BT.shape[1] < length:
        next_BV = logits_of(gpt, tokens_BT)[:, -1]
        next_BV[:, END] = -torch.inf
        tokens_BT = torch.cat([tokens_BT, next_BV.argmax(1, keepdim=True)], 1)
    return tokens_BT


def greedily(model: Any, tokens_BT: Tensor, length: int, **settings: Any) -> Tensor:
    new = length - tokens_BT.shape[1]
    asked = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, **settings}
    generated: Tensor = model.generate(**given(tokens_BT), **asked)
    return generated


def test_a_head_of_its_own_is_saved_beside_the_embeddings(hf: ModuleType, composer: Composer, tmp_path: Path) -> None:
    config = small_config(composer, "token_top2", embeddings=Embeddings.FROZEN, tied_head=False)
    gpt = small_model(config)
    assert not torch.equal(gpt.token_embedding.weight, gpt.head_VD)
    model = opened(saved(hf, gpt, config, tmp_path / "saved"))
    tokens_BT = texts(config)
    torch.testing.assert_close(model(**given(tokens_BT)).logits, logits_of(gpt, tokens_BT), atol=1e-5, rtol=1e-5)
    assert model.get_input_embeddings() is not model.get_output_embeddings()
    torch.testing.assert_close(model.get_output_embeddings().weight, gpt.head_VD)


@pytest.mark.parametrize("routing", ROUTINGS)
def test_what_is_saved_opens_with_our_logits_and_generates_what_we_would(
    routing: str, hf: ModuleType, composer: Composer, tmp_path: Path
) -> None:
    config = small_config(composer, routing)
    gpt = small_model(config)
    folder = saved(hf, gpt, config, tmp_path / "saved")
    model = opened(folder)
    for length in lengths_of(config):
        tokens_BT = texts(config, length=length)
        with torch.inference_mode():
            found = model(**given(tokens_BT)).logits
        torch.testing.assert_close(found, logits_of(gpt, tokens_BT), atol=1e-5, rtol=1e-5)
    model, gpt, context = opened(folder, torch.float64), gpt.double(), config.model.context
    prompt_BT = texts(config, length=PROMPT)
    if why := why_it_cannot_go_on(config.routing, context):
        with pytest.raises(StudyError, match=f"{why}, so it cannot generate"):
            greedily(model, prompt_BT, context)
        with pytest.raises(StudyError, match="so it cannot generate"):
            model(**given(prompt_BT), use_cache=True)
        return
    expected_BT = continued(gpt, prompt_BT, context)
    assert torch.equal(greedily(model, prompt_BT, context), expected_BT)
    assert torch.equal(greedily(model, prompt_BT, context, use_cache=False), expected_BT)


def test_both_kinds_are_among_the_committed_routings(composer: Composer) -> None:
    configs = [small_config(composer, routing) for routing in ROUTINGS]
    refused = [bool(why_it_cannot_go_on(config.routing, config.model.context)) for config in configs]
    assert sum(refused) >= 10 and refused.count(False) >= 20


SEVERAL = ["token_top2", "sequence_top2_prefix", "token_top1_capacity", "soft_moe_lagged"]


@pytest.fixture(params=SEVERAL)
def model(request: pytest.FixtureRequest, hf: ModuleType, composer: Composer) -> Any:
    config = small_config(composer, request.param)
    return hf.as_moe_study(small_model(config), config, END, CAUSAL, LABELS).double()


def test_saving_what_was_opened_loses_nothing(model: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "one")
    opened(tmp_path / "one", torch.float64).save_pretrained(tmp_path / "two")
    one, two = (tmp_path / name for name in ("one", "two"))
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    assert json.loads((one / "config.json").read_text()) == json.loads((two / "config.json").read_text())


def test_texts_of_different_lengths_are_generated_as_each_by_itself(model: Any) -> None:
    config = model.config.run_config
    alone = [texts(config, 1, length, seed=length) for length in (9, 1, 4)]
    padded = torch.cat([torch.nn.functional.pad(text, (9 - text.shape[1], 0), value=END) for text in alone])
    mask = torch.tensor([[column >= 9 - text.shape[1] for column in range(9)] for text in alone]).long()
    new = {"max_new_tokens": 10, "min_new_tokens": 10, "do_sample": False}
    for use_cache in (True, False):
        together = model.generate(padded, attention_mask=mask, use_cache=use_cache, **new)
        for row, text in zip(together, alone, strict=True):
            assert torch.equal(row[-10:], model.generate(text, **new)[0, -10:])


def test_padding_changes_no_logits(model: Any) -> None:
    config = model.config.run_config
    text = texts(config, 1, 6)
    before = torch.nn.functional.pad(text, (3, 0), value=END), torch.tensor([[0] * 3 + [1] * 6])
    behind = torch.nn.functional.pad(text, (0, 3), value=END), torch.tensor([[1] * 6 + [0] * 3])
    with torch.inference_mode():
        expected = model(text).logits[0]
        torch.testing.assert_close(model(before[0], attention_mask=before[1]).logits[0, 3:], expected)
        torch.testing.assert_close(model(behind[0], attention_mask=behind[1]).logits[0, :6], expected)


@pytest.mark.parametrize("settings", [{"num_beams": 3}, {"do_sample": True, "top_k": 5, "num_return_sequences": 2}])
def test_beams_and_samples_are_the_same_with_and_without_a_cache(model: Any, settings: dict[str, Any]) -> None:
    prompt_BT = texts(model.config.run_config, 2, PROMPT)
    found = []
    for use_cache in (True, False):
        torch.manual_seed(0)
        found.append(model.generate(prompt_BT, max_new_tokens=12, use_cache=use_cache, **settings))
    assert torch.equal(*found)


def test_guesses_that_were_wrong_are_forgotten(model: Any) -> None:
    """Prompt lookup guesses several tokens, and takes back what the model would not have said."""
    prompt_BT = torch.tensor([[5, 6, 7, 8, 5, 6, 7, 8, 5, 6]])
    greedy = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False}
    expected = model.generate(prompt_BT, **greedy)
    guessed = model.generate(prompt_BT, prompt_lookup_num_tokens=4, **greedy)
    assert torch.equal(guessed[:, : expected.shape[1]], expected)  # transformers 5.0 may give one more than asked for


def test_a_text_is_gone_on_with_by_hand(model: Any) -> None:
    text = texts(model.config.run_config, 2, 12)
    with torch.inference_mode():
        begun = model(text[:, :7], use_cache=True)
        rest = model(text[:, 7:], past_key_values=begun.past_key_values)
        expected = model(text).logits
    assert rest.past_key_values.get_seq_length() == 12
    torch.testing.assert_close(torch.cat([begun.logits, rest.logits], 1), expected)


def test_half_precision_generates(model: Any) -> None:
    half = model.to(torch.bfloat16)
    text = half.generate(texts(model.config.run_config, 2, PROMPT), max_new_tokens=8)
    assert text.shape[1] <= PROMPT + 8


def test_more_than_the_context_is_refused_before_anything_is_generated(model: Any) -> None:
    config = model.config.run_config
    context = config.model.context
    text = texts(config, 1, 5)
    with pytest.raises(StudyError, match=f"reads at most {context} tokens.* at most {context - 5} new ones"):
        model.generate(text, max_new_tokens=context)
    assert model.generate(text).shape[1] <= context  # where nothing is said, no more than fit
    with pytest.raises(StudyError, match=f"at most {context} tokens, and was given {context + 1}; cut the text"):
        model(texts(config, 1, context + 1))
    cache = model(texts(config, 1, context), use_cache=True).past_key_values
    with pytest.raises(StudyError, match=f"was given {context + 1}"):
        model(text[:, :1], past_key_values=cache)


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        ([[1, 0, 1], [1, 1, 1]], "not inside"),
        ([[0, 0, 0], [1, 1, 1]], "not everywhere"),
        ([[1, 1], [1, 1]], "a number for each token"),
    ],
)
def test_masks_that_mean_nothing_are_refused(model: Any, mask: list[list[int]], sentence: str) -> None:
    with pytest.raises(StudyError, match=sentence):
        model(texts(model.config.run_config, 2, 3), attention_mask=torch.tensor(mask))


def test_padding_behind_a_text_that_is_gone_on_with_is_refused(model: Any) -> None:
    prompt_BT, mask = texts(model.config.run_config, 2, 3), torch.tensor([[1, 1, 0], [1, 1, 1]])
    for use_cache in (True, False):
        with pytest.raises(StudyError, match="padding_side='left'"):
            model.generate(prompt_BT, attention_mask=mask, max_new_tokens=2, use_cache=use_cache)


def test_the_loss_is_that_of_the_next_tokens(model: Any) -> None:
    text = texts(model.config.run_config, 2)
    expected = model.gpt(text[:, :-1], text[:, 1:]).loss
    torch.testing.assert_close(model(text, labels=text).loss, expected)


def test_a_leaking_model_reads_no_padding(hf: ModuleType, composer: Composer) -> None:
    config = small_config(composer, "sequence_top2")
    leaking = hf.as_moe_study(small_model(config), config, END, CAUSAL, [])
    with pytest.raises(StudyError, match="reads later tokens, so padding would change"):
        leaking(texts(config, 2, 3), attention_mask=torch.tensor([[0, 1, 1], [1, 1, 1]]))


def test_what_an_audit_measured_refuses_as_what_is_declared(hf: ModuleType, composer: Composer) -> None:
    config = small_config(composer, "token_top2")
    measured = hf.as_moe_study(small_model(config), config, END, OWN_FUTURE, [])
    with pytest.raises(StudyError, match="reads later tokens, so it cannot generate"):
        measured.generate(texts(config, 1, PROMPT))


def test_a_router_by_label_wants_one(hf: ModuleType, composer: Composer) -> None:
    config = small_config(composer, "language_oracle")
    model = hf.as_moe_study(small_model(config), config, END, CAUSAL, LABELS)
    with pytest.raises(StudyError, match=r"give label_ids.*\(0 de, 1 en, 2 es\)"):
        model.generate(texts(config, 1, PROMPT))


def test_a_folder_stands_alone_whatever_is_drawn_where_it_is_opened(
    hf: ModuleType, composer: Composer, tmp_path: Path
) -> None:
    """The table of a hash router is a part of the model, not of a seed."""
    config = small_config(composer, "token_hash")
    gpt = small_model(config)
    path = saved(hf, gpt, config, tmp_path) / "config.json"
    changed = json.loads(path.read_text())
    changed["run"]["run"]["seed"] += 1
    path.write_text(json.dumps(changed))
    found = opened(tmp_path)(texts(config)).logits
    torch.testing.assert_close(found, logits_of(gpt, texts(config)), atol=1e-5, rtol=1e-5)


def test_weights_that_are_missing_are_one_sentence(hf: ModuleType, composer: Composer, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    config = small_config(composer, "token_top2")
    path = saved(hf, small_model(config), config, tmp_path) / "model.safetensors"
    weights = load_file(path)
    del weights["gpt.blocks.0.ffn.experts.up_EDF"]
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(StudyError, match=r"no weights for Experts\.up_EDF"):
        opened(tmp_path)


def test_a_new_model_is_drawn_as_a_run_draws_it(hf: ModuleType, composer: Composer) -> None:
    from transformers import AutoModelForCausalLM

    config = small_config(composer, "token_top2")
    described = hf.as_moe_study(small_model(config), config, END, CAUSAL, []).config
    fresh = AutoModelForCausalLM.from_config(described).eval()
    torch.testing.assert_close(fresh(texts(config)).logits, logits_of(small_model(config, steps=0), texts(config)))


def test_a_configuration_of_nothing_is_the_default_model(hf: ModuleType) -> None:
    described = hf.MoeStudyConfig()
    assert described.vocab_size == 257 and described.why_it_cannot_go_on == ""
    assert hf.MoeStudyConfig.from_dict(described.to_dict()).run_config == described.run_config


def test_a_cache_of_another_kind_is_refused(model: Any) -> None:
    from transformers import DynamicCache

    text = texts(model.config.run_config, 1, 4)
    filled = DynamicCache()
    filled.update(torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2, 4), 0)
    with pytest.raises(StudyError, match="must be what this model gave back"):
        model(text, past_key_values=filled)
    assert torch.equal(model(text, past_key_values=DynamicCache()).logits, model(text).logits)
