"""From a configuration to a model: fresh for training, or trained for analysis."""

from moe_study.design import accounting
from moe_study.design.config import RunConfig
from moe_study.errors import StudyError
from moe_study.model.gpt import GPT
from moe_study.model.transformer import Transformer
from moe_study.model.vit import ViT
from moe_study.runs.folder import RunFolder
from moe_study.training import checkpoint


def build_model(config: RunConfig, end_of_text: int | None) -> Transformer:
    """The configured model with its initial parameters, on the CPU."""
    model: Transformer
    parts, settings = (config.model, config.routing, config.vocab_size), config.run
    if config.task == "images":
        model = ViT(*parts, seed=settings.seed, dispatch=settings.dispatch)
    else:
        model = GPT(*parts, seed=settings.seed, end_of_text=end_of_text, dispatch=settings.dispatch)
    built = sum(parameter.numel() for parameter in model.parameters())
    assert built == accounting.num_params(config), (
        f"the model has {built} parameters, its configuration counts {accounting.num_params(config)}"
    )
    return model


def load_model(folder: RunFolder) -> Transformer:
    """The model of a run as last saved (its final weights if it is done), on the CPU, in evaluation mode.

    An older run is known by its folder's name, since its key may be another today; a copy under another name by its
    configuration. StudyError where the run has saved nothing yet, or nothing that can be read.
    """
    config = folder.read_config()
    state = checkpoint.load_newest(folder.checkpoint_folder)
    if state is None:
        raise StudyError(f"{folder.path} has no checkpoint that can be read; train this run first")
    if state["key"] not in (folder.key, config.key):
        raise StudyError(
            f"{folder.path} holds the checkpoint of run {state['key']}; put back the one that belongs here, or"
            " train this run again"
        )
    model = build_model(config, state["end_of_text"])
    model.load_state_dict(state["model"])
    return model.eval()
