"""Where corpora come from. A new corpus is one file here, its options' type in design/data_options.py, and one line
in RECIPES."""

from moe_study.data.recipes import hub_parquet, local_files, package_docs, parliament_news
from moe_study.data.recipes.base import Recipe, Source
from moe_study.errors import ConfigError

__all__ = ["RECIPES", "Recipe", "Source", "recipe_of"]

RECIPES: dict[str, Recipe] = {
    "parliament_news": parliament_news.RECIPE,
    "hub_parquet": hub_parquet.RECIPE,
    "local_files": local_files.RECIPE,
    "package_docs": package_docs.RECIPE,
}


def recipe_of(name: str) -> Recipe:
    """The recipe of that name; ConfigError lists the known ones."""
    if name not in RECIPES:
        raise ConfigError(f"data.recipe={name} is unknown; choose one of {', '.join(RECIPES)}")
    return RECIPES[name]
