from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.svm import LinearSVC
from small_nets import make

from fer_models import ModelError
from fer_models.evaluate import predict, predict_features
from fer_models.svm import fit_svm, load_svm
from fer_models.weights import save_weights

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


def test_other_files_and_too_few_faces_are_refused(faces: Faces, tmp_path: Path) -> None:
    net = make()
    save_weights(net, tmp_path / "net.safetensors", {})
    with pytest.raises(ModelError, match="holds no support vector machine"):
        load_svm(tmp_path / "net.safetensors")
    with pytest.raises(ModelError, match=r"5 images of each of 2 or more classes, got \[4, 4, 4, 4, 4, 4, 4\]"):
        fit_svm(net, *faces)
