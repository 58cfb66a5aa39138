from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.kernel_approximation import Nystroem
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC, LinearSVC

from fer_models import ModelError
from fer_models.training.evaluate import predict, predict_features
from fer_models.training.svm import Kernel, fit_svm, load_svm, predict_svm
from fer_models.training.weights import save_weights
from tests.fer_models.small_nets import make

Faces = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]


@pytest.fixture
def many(faces: Faces) -> Faces:
    """Five noisy pictures of each of the 28."""
    rng = np.random.default_rng(0)
    images = np.repeat(faces[0], 5, axis=0)
    noise = rng.integers(0, 40, images.shape, dtype=np.uint8)
    return np.minimum(images, 215) + noise, np.repeat(faces[1], 5)


def test_features_are_what_the_head_sees(faces: Faces) -> None:
    net = make()
    features = predict_features(net, faces[0], batch_size=9)
    assert features.shape == (28, 16)
    logits = features @ net.get_parameter("head.1.weight").detach().numpy().T
    logits += net.get_parameter("head.1.bias").detach().numpy()
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(predict(net, faces[0]), exponentials / exponentials.sum(1, keepdims=True), rtol=1e-4)


@pytest.mark.parametrize("classes", [7, 2])
def test_the_machine_is_scikit_learns_and_comes_back_from_disk(classes: int, many: Faces, tmp_path: Path) -> None:
    images, labels = (part[many[1] < classes] for part in many)
    net = make()
    head = fit_svm(net, images, labels)
    features = predict_features(net, images)
    scaled = (features - features.astype(np.float64).mean(0)) / np.maximum(features.astype(np.float64).std(0), 1e-12)
    theirs = CalibratedClassifierCV(LinearSVC(C=head.c, dual=False), method="sigmoid", cv=3, ensemble=False)
    expected = theirs.fit(scaled, labels).predict_proba(scaled)
    ours = head.predict_proba(features)
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    assert (ours.argmax(1) == labels).mean() > 0.8 > 1 / classes
    assert 0 <= head.held_out_accuracy <= 1
    head.save(tmp_path / "svm.safetensors")
    again = load_svm(tmp_path / "svm.safetensors")
    np.testing.assert_array_equal(again.predict_proba(features), ours)
    assert (again.c, again.held_out_accuracy) == (head.c, head.held_out_accuracy)


def standardised(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    wide = features.astype(np.float64)
    return (wide - wide.mean(0)) / np.where(wide.std(0) == 0, 1, wide.std(0))


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_margins_and_answers_are_scikit_learns(kernel: Kernel, many: Faces, tmp_path: Path) -> None:
    net = make()
    head = fit_svm(net, *many, kernel=kernel, seed=2**32, candidates=[1.0])
    features = predict_features(net, many[0])
    scaled = standardised(features)
    theirs = LinearSVC(C=1.0, dual=False)
    if kernel == "rbf":
        nystroem = Nystroem(kernel="rbf", gamma=1 / 16, n_components=140, random_state=0)
        theirs = make_pipeline(nystroem, theirs)
    theirs.fit(scaled, many[1])
    np.testing.assert_allclose(head.margins(features), theirs.decision_function(scaled), atol=1e-3)
    assert (head.margins(features).argmax(1) == theirs.predict(scaled)).all()
    head.save(tmp_path / "svm.safetensors")
    again = load_svm(tmp_path / "svm.safetensors")
    np.testing.assert_allclose(again.margins(features), head.margins(features), rtol=1e-9)


def test_landmarks_of_all_images_are_the_kernel_itself(many: Faces) -> None:
    """Two classes, so that SVC is one machine as ours is; its loss is the hinge, not its square."""
    images, labels = (part[many[1] < 2] for part in many)
    net = make()
    head = fit_svm(net, images, labels, kernel="rbf", candidates=[10.0])
    scaled = standardised(predict_features(net, images))
    assert head.rbf is not None
    seen = head.rbf(scaled)
    exact = np.exp(-((scaled[:, None] - scaled[None]) ** 2).sum(2) / 16)
    np.testing.assert_allclose(seen @ seen.T, exact, atol=1e-6)
    theirs = SVC(kernel="rbf", C=10.0, gamma=1 / 16).fit(scaled, labels).predict(scaled)
    assert ((head.margins(predict_features(net, images))[:, 0] > 0) == theirs).mean() > 0.95


def test_views_are_averaged(many: Faces) -> None:
    net = make()
    head = fit_svm(net, *many, candidates=[0.01])
    plain, mirrored = (predict_svm(net, head, images) for images in (many[0], many[0][:, :, ::-1].copy()))
    np.testing.assert_allclose(plain, head.predict_proba(predict_features(net, many[0])), atol=1e-6)
    np.testing.assert_allclose(predict_svm(net, head, many[0], views="mirror"), (plain + mirrored) / 2, atol=1e-5)


def test_other_files_and_too_few_faces_are_refused(faces: Faces, tmp_path: Path) -> None:
    net = make()
    save_weights(net, tmp_path / "net.safetensors", {})
    with pytest.raises(ModelError, match="has no support vector machine"):
        load_svm(tmp_path / "net.safetensors")
    with pytest.raises(ModelError, match=r"2 or more classes with 5 images each, got \[4, 4, 4, 4, 4, 4, 4\]"):
        fit_svm(net, *faces)
