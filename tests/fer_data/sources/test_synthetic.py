import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from fer_data import EXPRESSIONS, AugmentConfig, Faces, Split
from fer_data.augmentation.batches import train_batches
from fer_data.sources.synthetic import draw_faces


def test_splits_are_balanced_and_named_as_synthetic(synthetic_faces: Faces):
    assert (synthetic_faces.name, synthetic_faces.synthetic) == ("synthetic faces", True)
    assert synthetic_faces.train.images.shape == (4200, 48, 48)
    assert synthetic_faces.train.counts(7) == [600] * 7
    assert synthetic_faces.val.counts(7) == synthetic_faces.test.counts(7) == [120] * 7


def test_no_face_stands_twice(synthetic_faces: Faces):
    splits = (synthetic_faces.train, synthetic_faces.val, synthetic_faces.test)
    images = np.concatenate([split.images.reshape(len(split), -1) for split in splits])
    assert len({image.tobytes() for image in images}) == 5880


def test_labels_are_shuffled(synthetic_faces: Faces):
    labels = synthetic_faces.train.labels
    assert all(len(set(labels[start : start + 100].tolist())) == 7 for start in range(0, 4200, 100))


def test_images_use_the_range_of_grey_levels(synthetic_faces: Faces):
    images = synthetic_faces.train.images
    assert 90 < images.mean() < 165
    assert images.std(axis=(1, 2)).min() > 3


def test_a_seed_means_the_same_faces():
    labels = np.arange(7, dtype=np.uint8)
    first, again, other = (draw_faces(labels, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def standardised(split: Split) -> torch.Tensor:
    images = torch.from_numpy(np.array(split.images)).float().unsqueeze(1)
    return (images - images.mean((2, 3), keepdim=True)) / (images.std((2, 3), keepdim=True) + 8)


@pytest.mark.slow
@pytest.mark.parametrize("regularisation", [1e-3, 1e-2, 1e-1])
def test_a_linear_model_on_pixels_fails(synthetic_faces: Faces, regularisation: float):
    pixels = {name: standardised(getattr(synthetic_faces, name)).flatten(1).numpy() for name in ("train", "val")}
    model = LogisticRegression(C=regularisation, max_iter=100)
    model.fit(pixels["train"], synthetic_faces.train.labels)
    assert model.score(pixels["val"], synthetic_faces.val.labels) < 0.60


@pytest.mark.slow
def test_a_small_convolutional_net_does_well_within_260_steps(synthetic_faces: Faces):
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in ((1, 16), (16, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    net = nn.Sequential(nn.InstanceNorm2d(1), *layers, nn.Flatten(), nn.Linear(64 * 9, len(EXPRESSIONS)))
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        for images, labels in train_batches(synthetic_faces.train, 64, AugmentConfig(flip=0.5), generator):
            loss = nn.functional.cross_entropy(net(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    net.eval()
    with torch.no_grad():
        predicted = net(torch.from_numpy(np.array(synthetic_faces.val.images)).float().unsqueeze(1)).argmax(1)
    assert np.mean(predicted.numpy() == synthetic_faces.val.labels) > 0.75
