"""Sweep files: a question as a union of small grids, written in a few lines of YAML.

    # Which question it answers, and its command.
    base: {model: nano, run.tokens: 500_000}        # overrides of every point
    seeds: [0, 1]
    points:                                         # each block is the product of its lists; the grid is their union
      - {routing: [token_top1, token_top2], routing.num_experts: [2, 4]}
      - {routing: dense, routing.ffn_multiplier: [1, 2]}
    exclude:                                        # points that match all keys of an entry are left out
      - {routing: token_top2, routing.num_experts: 2}
    skip_invalid: false                             # true: leave points out that have no meaning
    margin: 0.01                                    # nats per token within which two points count as the same
    compare:                                        # what is tested, stated before the runs; all else is described
      - [{routing: token_top2}, {routing: dense, routing.ffn_multiplier: 1}]
      - pair: [{routing: token_top2}, {routing: token_top1}]
        why: Do two experts beat one?
        margin: 0.02                                # of this comparison
      - pair: [{routing: token_top2}, {routing: dense}]
        at: flops                                   # against the curve of the dense points, at the first side's cost
      - effect: [k, num_experts]                    # their interaction; one setting: its main effect
        where: {routing.gate: softmax_then_pick}    # only these points
      - trend: [{routing: token_top2}, {routing: dense}]   # how their difference changes per doubling of parameters
        over: model.width
      - reach: [{routing: token_top2}, {routing: dense, routing.ffn_multiplier: 2}]   # at which share of the second
        by: flops                                   # side's cost the curve of the first has its loss; not tested
    source: "2402.13089, Table 1"                   # whose claims these are; see claims.py
    scale: cpu                                      # which of the scales is meant without scale=NAME
    scales:                                         # changes after those of base, for each size; see scales.py
      gpu: {recipe: gpu}
      cpu: {recipe: pico, run.tokens: 200_000}

Keys and values are those of the command line (see values.py); in `points` a list is a list of alternatives, so that a
value which is itself a list is written twice: routing.layers: [[0, 2], [1]]. Each side of a comparison names so many
settings of a point that it means one point of the sweep, over all seeds (see comparisons.py); at equal cost the second
side may mean several. Effects: see effects.py; trends over size: trends.py; costs at equal loss: reaches.py.
"""

import difflib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override

from moe_study.errors import ConfigError
from moe_study.sweeps.claims import OF_FILE, Claims, read_claims, without_claims
from moe_study.sweeps.comparisons import AnyQuestion, read_questions
from moe_study.sweeps.conf import is_setting
from moe_study.sweeps.scales import MARK, at_scale, joined, names_of, split
from moe_study.sweeps.values import as_text, read_yaml

SWEEPS = "sweeps"  # the folder of sweep files
KEYS = ("base", "seeds", "points", "exclude", "skip_invalid", "margin", "compare", "scale", "scales", *OF_FILE)

Point = dict[str, str]  # override key -> value as it stands on the command line


@dataclass(frozen=True)
class Grid:
    """What a sweep file says, or what a command line with lists of values says."""

    name: str | None
    points: tuple[Point, ...]
    exclude: tuple[Mapping[str, Any], ...] = ()
    skip_invalid: bool = False
    questions: tuple[AnyQuestion, ...] = ()


def read_grid(name: str, root: Path, scale: str | None = None) -> Grid:
    """The grid of sweeps/NAME.yaml below `root`, or of the file `name`; ConfigError says what is wrong in it.

    `scale`, or what follows an @ in `name`, chooses one of its scales. Its name is the file's path below sweeps/
    (recipe/init), or the name of a file that lies elsewhere, with @SCALE where it has scales.
    """
    path, scale = _chosen(name, scale, root)
    content = _content(path)
    content, scale = at_scale(content, scale, path)
    base = {key: _text(key, value, path) for key, value in _mapping(content, "base", path).items()}
    blocks = _list_of_mappings(content, "points", path) or [{}]
    seeds = content.get("seeds")
    if seeds is not None and (not isinstance(seeds, list) or not all(type(seed) is int for seed in seeds) or not seeds):
        raise ConfigError(f"{path}: seeds must be a list of whole numbers, not {seeds!r}")
    if seeds and len(set(seeds)) < len(seeds):
        raise ConfigError(f"{path}: seeds must be different numbers, not {seeds!r}")
    points = [
        {**base, **point, **({} if seed is None else {"run.seed": str(seed)})}
        for block in blocks
        for point in _product(block, path)
        for seed in seeds or [None]
    ]
    for key in sorted({key for point in points for key in point}):
        if is_setting(key) or key.startswith("hydra"):
            raise ConfigError(
                f"{path}: {key} is a setting of the command, not of its runs; give it on the command line instead"
            )
    skip = content.get("skip_invalid", False)
    if not isinstance(skip, bool):
        raise ConfigError(f"{path}: skip_invalid must be true or false, not {skip!r}")
    exclude = _list_of_mappings(content, "exclude", path)
    full_name = joined(_name_of(path, root), scale)
    questions = read_questions(without_claims(content), path)
    read_claims(content, path)  # for its mistakes
    return Grid(full_name, tuple(points), tuple(exclude), skip, questions)


def claims_of(name: str, root: Path) -> Claims:
    """What the sweep `name`, or NAME@SCALE, is about: whose claims it tests, and what they would have to show."""
    path, scale = _chosen(name, None, root)
    content, _ = at_scale(_content(path), scale, path)
    return read_claims(content, path)


def launched_as(name: str, root: Path) -> str:
    """What the runs of the sweep `name` are kept under: of a path to its file the file's name, NAME@SCALE with a scale.

    What is no path stands as it is: a sweep that was launched needs no file.
    """
    path, mark, scale = name.rpartition(MARK) if not Path(name).is_file() else (name, "", "")
    return f"{_name_of(Path(path), root)}{mark}{scale}" if Path(path).is_file() else name


def scales_of(name: str, root: Path) -> list[str]:
    """The names of the scales of the sweep `name`; none where its file has no `scales:`."""
    path = find_sweep(name, root)
    return names_of(_content(path), path)


def _content(path: Path) -> dict[str, Any]:
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold some of {', '.join(KEYS)}")
    for key in content:
        if key not in KEYS:
            close = difflib.get_close_matches(str(key), KEYS, n=1)
            advice = f"did you mean {close[0]}?" if close else f"use {', '.join(KEYS)}"
            raise ConfigError(f"{path}: unknown key {key}; {advice}")
    return content


def sweep_names(root: Path) -> list[str]:
    """Every sweep below `root`: paths below sweeps/, as in first_look and recipe/init. Hidden files are none."""
    folder = root / SWEEPS
    paths = (path.relative_to(folder).with_suffix("") for path in folder.rglob("*.yaml"))
    return sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))


def _chosen(name: str, scale: str | None, root: Path) -> tuple[Path, str | None]:
    """The file that `name` means, and which of its scales is asked for, by `scale` or behind an @."""
    sweep, of_name = split(name)
    if of_name is None or Path(name).is_file() or any(name in sweep_names(place) for place in _places(root)):
        return find_sweep(name, root), scale
    if scale not in (None, of_name):
        raise ConfigError(f"sweep={name} and scale={scale} name two scales; leave one of them out")
    return find_sweep(sweep, root), of_name


def find_sweep(name: str, root: Path) -> Path:
    """The sweep file that `name` means: its path below sweeps/ without the ending, or a path to any file.

    sweeps/ is looked for below `root` first, then below the current folder.
    """
    known = {one: place for place in reversed(_places(root)) for one in sweep_names(place)}
    if name in known:
        return known[name] / SWEEPS / f"{name}.yaml"
    if Path(name).is_file():
        return Path(name)
    in_any_folder = {one.rpartition("/")[2]: one for one in known}
    close = difflib.get_close_matches(name, [*known, *in_any_folder], n=1)
    listed = f"there are {', '.join(sorted(known)) or 'none'}"
    advice = f"did you mean {in_any_folder.get(close[0], close[0])}?" if close else listed
    raise ConfigError(f"there is no sweep {name} in {root / SWEEPS}; {advice}; a file elsewhere is meant by its path")


def _name_of(path: Path, root: Path) -> str:
    for folder in ((place / SWEEPS).resolve() for place in _places(root)):
        if path.resolve().is_relative_to(folder):
            return path.resolve().relative_to(folder).with_suffix("").as_posix()
    return path.stem


def _places(root: Path) -> list[Path]:
    """Folders whose sweeps/ counts, the most important first."""
    return [root] if root.resolve() == Path.cwd() else [root, Path.cwd()]


def _mapping(content: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    value = content.get(key) or {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: {key} must map override keys to values, not be {value!r}")
    return {str(name): item for name, item in value.items()}


def _list_of_mappings(content: Mapping[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    value = content.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ConfigError(f"{path}: {key} must be a list of mappings from override keys to values")
    return [{str(name): entry for name, entry in item.items()} for item in value]


def _product(block: Mapping[str, Any], path: Path) -> Iterable[Point]:
    """All points of one block, the first key varying slowest."""
    axes = []
    for key, values in block.items():
        alternatives = values if isinstance(values, list) else [values]
        if not alternatives:
            raise ConfigError(f"{path}: {key} has an empty list of values")
        texts = [_text(key, value, path) for value in alternatives]
        if len(set(texts)) < len(texts):
            whole = as_text(alternatives)
            raise ConfigError(
                f"{path}: {key} has a value twice; write each once, or {key}: [{whole}] for the one value {whole}"
            )
        axes.append([(key, text) for text in texts])
    return (dict(choice) for choice in itertools.product(*axes))


def _text(key: str, value: Any, path: Path) -> str:
    """The value as it stands on the command line; nothing where a key is only to be deleted."""
    if key.startswith("~") and value is None:
        return ""
    try:
        return as_text(value)
    except ConfigError as error:
        raise ConfigError(f"{path}: {key}: {error}") from error


def with_overrides(grid: Grid, overrides: Sequence[Override]) -> Grid:
    """The grid with command-line overrides in every point; lists of values multiply it."""
    axes = [[(key, value) for value in values] for key, values in map(_alternatives, overrides)]
    points = [{**point, **dict(choice)} for point in grid.points for choice in itertools.product(*axes)]
    return replace(grid, points=tuple(points))


def _alternatives(override: Override) -> tuple[str, list[str]]:
    key = override.get_key_element()
    if not override.is_sweep_override():
        return key, [override.get_value_element_as_str()]
    if not override.is_discrete_sweep():
        raise ConfigError(f"{override.input_line}: only lists and ranges of values can be swept")
    return key, list(override.sweep_string_iterator())


def as_overrides(point: Point) -> tuple[str, ...]:
    return tuple(key if key.startswith("~") and not value else f"{key}={value}" for key, value in point.items())
