"""Draws augmented and preprocessed faces, to check settings before training.

Legend: n tiles, h and w their height and width.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from pydantic import ValidationError

from fer_common.errors import did_you_mean
from fer_common.faults import rule
from fer_data.augmentation.augment_config import AugmentConfig
from fer_data.augmentation.preprocess_names import INT64_SUFFIX, PREPROCESSINGS
from fer_data.faces import DataError, Faces, Split
from fer_data.overview import draw_counts, save, writable

_TILE_INCHES, _TEXT_INCHES, _HEAD_INCHES, _BARS_INCHES = 0.78, 0.24, 0.45, 2.8


def draw_augmented(path: Path, faces: Faces, place: int, config: AugmentConfig, count: int, seed: int) -> None:
    """Write a PNG with one train face and `count` augmented versions of it, as in training.

    Raises:
        DataError: there is no such face, albumentations refuses the pipeline, or a disk error.
    """
    import torch

    from fer_data.augmentation.batches import train_batches

    face = _face(faces, place)
    # Mixing needs other faces of the batch, and the first tile already shows the plain face.
    alone = config.model_copy(update={"mixup": 0.0, "cutmix": 0.0, "plain_and_augmented": False})
    copies = Split("train", np.repeat(face[None], count, axis=0), np.zeros(count, np.uint8))
    (batch,) = train_batches(copies, count, alone, torch.Generator().manual_seed(seed))
    settings = ", ".join(f"{name} {value}" for name, value in config.model_dump(exclude_defaults=True).items())
    mixing = "\nmixup and cutmix mix faces of a batch, and are not shown" if config.mixes else ""
    title = f"{_about(faces, place)}: original, and {count} augmented versions\n{settings or 'no augmentation'}{mixing}"
    tiles = np.concatenate([face[None].astype(np.float32), batch[0][:, 0].numpy()])
    save(_sheet(tiles, [], title, columns=8), path)


def draw_preprocessed(path: Path, faces: Faces, place: int) -> None:
    """Write a PNG with one train face under every preprocessing, each with the range of its values.

    Raises:
        DataError: there is no such face, or a disk error.
    """
    from fer_data.augmentation.preprocess import preprocess

    face = _face(faces, place)
    tiles, names = [], []
    for name in PREPROCESSINGS:
        (tile,) = preprocess(face[None], name, faces.mean_image())
        tiles.append(tile)
        low, high = (round(float(value), 1) for value in (tile.min(), tile.max()))
        names.append(f"{name.replace(INT64_SUFFIX, ' int64')}\n{low:g} to {high:g}")
    title = f"{_about(faces, place)} under every preprocessing, on the scale 0 (black) to 255 (white)"
    save(_sheet(np.stack(tiles), names, title, columns=7), path)


def draw_first(path: Path, faces: Faces, count: int) -> None:
    """Write a PNG with the class counts and the first `count` train faces with their labels.

    Raises:
        DataError: a disk error.
    """
    count = min(count, len(faces.train))
    labels = [writable(faces.classes[label]) for label in faces.train.labels[:count]]
    title = f"{writable(faces.name)}: images per class, and the first {count} of {len(faces.train):,} train faces"
    figure = _sheet(np.asarray(faces.train.images[:count], np.float32), labels, title, columns=16, bars=faces)
    save(figure, path)


def read_augmentation(settings: Sequence[str], config: Path | None) -> AugmentConfig:
    """The augmentation in a trial's config.json, or none, changed by `KEY=VALUE` settings.

    Raises:
        DataError: lists every unknown name, malformed setting and value out of range; or the file is not a
            configuration.
    """
    content = _read(config) if config else {}
    faults = []
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.removeprefix("augment.")
        if not equals:
            faults.append(f"'{setting}': expected key=value")
        elif name not in AugmentConfig.model_fields:
            faults.append(f"'{name}': unknown setting{did_you_mean(name, AugmentConfig.model_fields)}")
        else:
            content[name] = _value(text)
    try:
        made = AugmentConfig.model_validate(content)
    except ValidationError as error:
        faults += [
            f"{'.'.join(map(str, fault['loc'])) or 'augmentation'}: {rule(fault)}, got {fault['input']!r}"
            for fault in error.errors()
        ]
    if faults:
        raise DataError("; ".join(faults))
    return made


def _read(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}; give a trial's config.json") from error
    if not isinstance(content, dict) or not isinstance(content.get("augment", {}), dict):
        raise DataError(f"{path}: not a trial's configuration; give the config.json of its folder")
    return dict(content.get("augment", {}))


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _face(faces: Faces, place: int) -> npt.NDArray[np.uint8]:
    if not 0 <= place < len(faces.train):
        raise DataError(f"--face {place}: the train split has 0 to {len(faces.train) - 1:,}")
    face = faces.train.images[place]
    return np.array(face, np.uint8)


def _about(faces: Faces, place: int) -> str:
    name = faces.classes[int(faces.train.labels[place])]
    return writable(f"{faces.name}, train face {place:,} ({name})")


def _sheet(
    tiles: npt.NDArray[np.float32], texts: Sequence[str], title: str, *, columns: int, bars: Faces | None = None
) -> Figure:
    """Tiles [n, h, w] in rows, each above its text if it has one; above all of them the class counts of `bars`."""
    rows = -(-len(tiles) // columns)
    lines = max((text.count("\n") + 1 for text in texts), default=0)
    tile_width = _TILE_INCHES if bars else 1.35
    row_height = tile_width + _TEXT_INCHES * lines + 0.06
    above = _HEAD_INCHES + 0.2 * title.count("\n") + (_BARS_INCHES if bars else 0)
    width, height = columns * tile_width + 0.3, above + rows * row_height + 0.35
    figure = Figure(figsize=(width, height))
    figure.suptitle(title, fontsize=11, y=1 - 0.12 / height, va="top", parse_math=False, wrap=True)
    if bars:
        box = (0.07, 1 - (above - 0.3) / height, 0.91, (_BARS_INCHES - 0.45) / height)
        draw_counts(figure.add_axes(box), bars, [writable(name) for name in bars.classes])
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        left = 0.15 / width + column * tile_width / width
        bottom = 1 - (above + row * row_height + tile_width) / height
        axes = figure.add_axes((left, bottom, 0.95 * tile_width / width, 0.95 * tile_width / height))
        axes.imshow(tile, cmap="gray", vmin=0, vmax=255, interpolation="none")
        axes.set_axis_off()
        if number < len(texts):
            axes.text(0.5, -0.04, texts[number], transform=axes.transAxes, ha="center", va="top",
                      fontsize=7 if bars else 8, parse_math=False)  # fmt: skip
    return figure
