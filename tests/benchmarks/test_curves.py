"""FER-Curves are recorded, continue after a stop, and say in bits what they say in numbers."""

from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.curves.record import Material, Setting, drawn, prepared, record
from tests.benchmarks.curves.table import load, pack

SETTING = Setting(train_faces=280, val_faces=56, held_out_faces=70, epochs=2)


@pytest.fixture(scope="module")
def material() -> Material:
    return prepared("synthetic", SETTING)


def test_what_is_judged_is_not_trained_on(material: Material) -> None:
    trained = {image.tobytes() for image in material.faces.train.images}
    judged = [image.tobytes() for image in material.judged]
    assert len(judged) == len(material.labels) == 126
    held_out = judged[SETTING.val_faces :]
    assert not trained & set(held_out)
    assert not set(judged[: SETTING.val_faces]) & set(held_out)
    assert len(set(held_out)) == len(held_out)


def test_a_table_has_what_was_recorded(material: Material, tmp_path: Path) -> None:
    learns = next(number for number in range(100) if drawn(number)[1]["lr"] < 0.01)
    other = 25_000
    for number, repeat in ((learns, 0), (learns, 1), (other, 0)):
        record(tmp_path, material, SETTING, number, repeat)
    assert pack(tmp_path, tmp_path / "table.parquet") == 3
    curves = load(tmp_path / "table.parquet")
    assert curves.setting == SETTING
    assert curves.numbers.tolist() == [learns, learns, other]
    assert curves.repeats.tolist() == [0, 1, 0]
    assert curves.params[0] == curves.params[1] == drawn(learns)[1]
    for run in range(2):
        for epoch in (1, 2):
            val, held_out = curves.right(run, epoch)
            assert val.mean() == pytest.approx(curves.series["val_accuracy"][run, epoch - 1], abs=1e-6)
            assert held_out.mean() == pytest.approx(curves.series["held_out_accuracy"][run, epoch - 1], abs=1e-6)
    assert not np.array_equal(curves.series["train_loss"][0], curves.series["train_loss"][1]), "another seed"


def test_a_recorded_run_is_not_trained_again(material: Material, tmp_path: Path) -> None:
    first = record(tmp_path, material, SETTING, 5).read_bytes()
    assert record(tmp_path, material, SETTING, 5).read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["00005-0.npz"]
