import dataclasses

import numpy as np
import pytest

from fer_data import DataError, DataOptions, Faces, Split, limit_train, open_cached, prepare
from fer_data.cache.leaks import leaks
from fer_data.cache.subsets import choose_classes, dedupe_train, fold, take_subsets
from tests.fer_data.small_faces import faces_of


def pictures(numbers: list[int], labels: list[int], name: str = "train", soft: np.ndarray | None = None) -> Split:
    """Image k is filled with numbers[k]."""
    images = np.repeat(np.array(numbers, np.uint8), 16).reshape(-1, 4, 4)
    return Split(name, images, np.array(labels, np.uint8), soft)


def three_classes() -> Faces:
    """Train 0..11 with labels 0 1 2 0 1 2 ..., val 12..14, test 15..17."""
    return dataclasses.replace(
        faces_of([0], 3),
        train=pictures(
            list(range(12)),
            [0, 1, 2] * 4,
            soft=np.tile(np.float32([[0.6, 0.2, 0.2], [0, 1, 0], [0.1, 0.3, 0.6]]), (4, 1)),
        ),
        val=pictures([12, 13, 14], [0, 1, 2], "val"),
        test=pictures([15, 16, 17], [0, 1, 2], "test"),
    )


def numbers_of(split: Split) -> list[int]:
    return split.images[:, 0, 0].tolist()


def test_classes_are_renumbered_in_the_order_given():
    faces = choose_classes(three_classes(), ["FEAR", "angry"])
    assert faces.classes == ("Fear", "Angry")
    assert numbers_of(faces.train) == [0, 2, 3, 5, 6, 8, 9, 11]
    assert faces.train.labels.tolist() == [1, 0] * 4
    assert (numbers_of(faces.val), faces.val.labels.tolist()) == ([12, 14], [1, 0])
    assert (numbers_of(faces.test), faces.test.labels.tolist()) == ([15, 17], [1, 0])
    assert faces.notes == ("of all classes only Fear, Angry",)
    assert faces.train.soft_labels is not None
    assert np.allclose(faces.train.soft_labels[:2], [[0.25, 0.75], [6 / 7, 1 / 7]])


def test_everything_wrong_with_the_classes_is_said_at_once():
    with pytest.raises(DataError) as raised:
        choose_classes(
            dataclasses.replace(three_classes(), test=pictures([15], [1], "test")), ["angri", "Fear", "fear"]
        )
    assert str(raised.value) == (
        "classes of small: no class 'angri'; did you mean 'Angry'?; class Fear is given twice; "
        "class Fear has no images in test; choose among Angry, Disgust, Fear"
    )
    with pytest.raises(DataError, match="1 given, at least 2 are needed"):
        choose_classes(three_classes(), ["Fear"])


def test_a_class_with_a_comma_is_named_as_what_cannot_be_chosen():
    faces = dataclasses.replace(three_classes(), classes=("a,b=c", "fear", "happy"))
    with pytest.raises(DataError) as raised:
        choose_classes(faces, ["a", "b=c", "fear"])
    assert str(raised.value) == (
        "classes of small: no class 'a'; no class 'b=c'; class 'a,b=c' cannot be chosen, since commas separate classes: "
        "rename its folder; choose among a,b=c, fear, happy"
    )


def test_dedupe_drops_train_images_that_stand_in_val_or_test():
    faces = dataclasses.replace(
        faces_of([0], 2),
        train=pictures([1, 1, 2, 3, 3, 4], [0, 1, 0, 1, 0, 1]),
        val=pictures([3, 5], [0, 1], "val"),
        test=pictures([1, 5, 6], [0, 1, 0], "test"),
    )
    deduped = dedupe_train(faces)
    assert numbers_of(deduped.train) == [2, 4]
    assert deduped.train.labels.tolist() == [0, 1]
    assert numbers_of(deduped.val) == [3, 5]
    assert deduped.notes == ("4 of 6 train images dropped that are also in val or test",)
    assert deduped.val.leaked.tolist() == [False, False]
    assert deduped.test.leaked.tolist() == [False, True, False]  # 5 still stands in val
    assert np.allclose(deduped.mean_image(), 3)


def test_dedupe_leaves_something_to_train_on():
    faces = dataclasses.replace(faces_of([0], 1), train=pictures([1], [0]), val=pictures([1], [0], "val"))
    with pytest.raises(DataError, match="each train image is also in val or test"):
        dedupe_train(faces)


def many() -> Faces:
    """100 pictures of three classes 60:30:10, train 80 and val 20; picture k stands 1 + k % 3 times in train."""
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1, 2], [60, 30, 10])
    train = rng.permutation(np.concatenate([np.repeat(k, 1 + k % 3) for k in range(100)]))
    val = np.arange(0, 100, 5)
    return dataclasses.replace(
        faces_of([0], 3),
        train=pictures(train.tolist(), label[train].tolist()),
        val=pictures(val.tolist(), label[val].tolist(), "val"),
        test=pictures([200, 7, 201], [0, 1, 2], "test"),
    )


def test_folds_divide_train_and_val_and_never_a_picture():
    faces = many()
    parts = [fold(faces, k, 5, seed=3) for k in range(1, 6)]
    everything = sorted(numbers_of(faces.train) + numbers_of(faces.val))
    for part in parts:
        assert sorted(numbers_of(part.train) + numbers_of(part.val)) == everything
        assert not set(numbers_of(part.train)) & set(numbers_of(part.val))
        assert not part.val.leaked.any()
        assert np.array_equal(part.test.images, faces.test.images)
        assert part.test.leaked.tolist() == [False, True, False]
    assert sorted(number for part in parts for number in numbers_of(part.val)) == everything


def test_folds_are_stratified_and_labels_follow_their_images():
    faces = many()
    whole = np.array(faces.train.counts(3)) + faces.val.counts(3)
    label = np.repeat([0, 1, 2], [60, 30, 10])
    for k in range(1, 6):
        val = fold(faces, k, 5, seed=0).val
        assert np.abs(np.array(val.counts(3)) - whole / 5).max() <= 3  # a picture has at most 4 copies
        assert val.labels.tolist() == label[numbers_of(val)].tolist()


def test_the_seed_decides_the_folds():
    first, again, other = (numbers_of(fold(many(), 1, 5, seed).val) for seed in (0, 0, 1))
    assert first == again != other


def test_a_fold_says_what_it_is():
    part = fold(many(), 2, 5, seed=3)
    (note,) = part.notes
    assert part.val_is_fold
    assert note == "val is fold 2 of 5 of train and val (stratified, seed 3, copies of a picture in one fold)"


def test_folds_of_soft_labels_count_hard_ones_as_certain():
    faces = three_classes()
    parts = [fold(faces, k, 3, seed=0) for k in (1, 2, 3)]
    for part in parts:
        assert part.val.soft_labels is None
        for number, soft in zip(numbers_of(part.train), part.train.soft_labels, strict=True):
            expected = faces.train.soft_labels[number] if number < 12 else np.eye(3)[number - 12]
            assert np.array_equal(soft, np.float32(expected))


@pytest.mark.parametrize(
    ("k", "n", "says"),
    [
        (0, 5, "no fold 0 of 5"),
        (6, 5, "no fold 6 of 5"),
        (1, 1, "no fold 1 of 1"),
        (1, 11, "class Fear has 10 pictures"),
    ],
)
def test_folds_that_cannot_be_are_refused(k, n, says):
    with pytest.raises(DataError, match=says):
        fold(many(), k, n, 0)


def test_views_are_taken_in_a_fixed_order():
    options = DataOptions(limit_train=30, dedupe="train", fold=2, folds=5, classes=("disgust", "Angry"))
    faces, step = take_subsets(many(), options), many()
    for view in (
        lambda faces: choose_classes(faces, ["disgust", "Angry"]),
        lambda faces: fold(faces, 2, 5, 0),
        dedupe_train,
        lambda faces: limit_train(faces, 30, 0),
    ):
        step = view(step)
    assert faces.fingerprint == step.fingerprint
    assert faces.notes == step.notes
    assert len(faces.notes) == 4
    assert len(faces.train) == 30


def test_each_view_has_a_fingerprint_of_its_own():
    faces = many()
    views = [
        faces,
        dedupe_train(faces),
        *(fold(faces, k, n, seed) for k, n, seed in [(1, 5, 0), (2, 5, 0), (1, 4, 0), (1, 5, 1)]),
        *(choose_classes(faces, names) for names in (["Angry", "Fear"], ["Fear", "Angry"])),
        limit_train(faces, 10, 0),
    ]
    assert len({view.fingerprint for view in views}) == len(views)


def test_a_view_is_a_data_set_of_its_own_in_the_cache(write_csv, good_rows, cache):
    path = write_csv(good_rows * 3)
    base = prepare(path)
    options = DataOptions(source=str(path), limit_train=7)
    folder = prepare(options)
    faces = open_cached(folder)
    assert base != folder == prepare(options)
    assert folder == cache / faces.fingerprint
    assert isinstance(faces.train.images, np.memmap)
    assert len(faces.train) == 7
    assert prepare(path) == base == prepare(DataOptions(source=str(path), limit_seed=3))
    assert len(list(cache.iterdir())) == 3


def test_a_view_that_does_not_fit_leaves_nothing_behind(write_csv, good_rows, cache):
    path = write_csv(good_rows)
    base = prepare(path)
    before = {entry for entry in cache.rglob("*") if entry.is_file()}
    with pytest.raises(DataError, match="choose among Angry"):
        prepare(DataOptions(source=str(path), classes=("Hapy", "Sad")))
    assert {entry for entry in cache.rglob("*") if entry.is_file()} == before
    assert prepare(path) == base


@pytest.mark.slow
def test_the_official_data_can_be_deduped_and_folded(official_csv):
    deduped = open_cached(prepare(DataOptions(source=str(official_csv), dedupe="train")))
    assert leaks(deduped).val_in_train == leaks(deduped).test_in_train == 0
    folds = [
        open_cached(prepare(DataOptions(source=str(official_csv), fold=k, folds=5, classes=("happy", "sad"))))
        for k in (1, 2)
    ]
    counts = np.array([part.val.counts(2) for part in folds])
    assert np.abs(counts - np.array([7215 + 895, 4830 + 653]) / 5).max() <= 1
    assert not folds[0].val.leaked.any()


def test_limit_train_keeps_the_proportions_of_the_classes():
    faces = faces_of([0] * 50 + [1] * 30 + [2] * 20, 3)
    limited = limit_train(faces, 20, seed=0)
    assert limited.train.counts(3) == [10, 6, 4]
    positions = limited.train.images[:, 0, 0]
    assert len(set(positions.tolist())) == 20
    assert np.array_equal(limited.train.labels, faces.train.labels[positions])
    assert np.array_equal(limited.val.images, faces.val.images)
    assert np.array_equal(limited.test.images, faces.test.images)


def test_limit_train_keeps_one_of_a_rare_class():
    limited = limit_train(faces_of([0] * 150 + [1], 2), 10, seed=0)
    assert limited.train.counts(2) == [9, 1]


@pytest.mark.parametrize("n", range(4, 24))
def test_limit_train_gives_exactly_n(n):
    faces = faces_of([0] * 9 + [1] * 7 + [2] * 6 + [3], 4)
    counts = limit_train(faces, n, seed=n).train.counts(4)
    assert sum(counts) == n
    assert min(counts) >= 1


def test_limit_train_depends_on_n_and_seed_alone():
    faces = faces_of([0, 1] * 50, 2)
    first, again = limit_train(faces, 30, seed=1), limit_train(faces, 30, seed=1)
    other_seed, other_n = limit_train(faces, 30, seed=2), limit_train(faces, 31, seed=1)
    assert np.array_equal(first.train.images, again.train.images)
    assert first.fingerprint == again.fingerprint
    assert not np.array_equal(first.train.images, other_seed.train.images)
    prints = {split.fingerprint for split in (faces, first, other_seed, other_n)}
    assert len(prints) == 4


def test_limit_train_says_so_and_keeps_earlier_notes():
    faces = dataclasses.replace(faces_of([0, 1] * 50, 2), notes=("first",), stored_mean=np.zeros((4, 4), np.float32))
    limited = limit_train(faces, 30, seed=1)
    assert limited.name == faces.name
    assert limited.notes == ("first", "trained on 30 of 100 train images (stratified, seed 1)")
    assert np.allclose(limited.mean_image(), limited.train.images.mean())


@pytest.mark.parametrize("n", [-1, 0, 1, 101])
def test_limit_train_refuses_too_few_and_too_many(n):
    with pytest.raises(DataError, match=rf"to {n} images: choose 2 \(one per class\) to 100"):
        limit_train(faces_of([0, 1] * 50, 2), n, seed=0)
