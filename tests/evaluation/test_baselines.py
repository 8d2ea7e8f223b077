"""The pixels themselves as features."""

import h5py
import numpy as np

from nenya.data.images import ImageFile
from nenya.evaluation.baselines import pixel_accuracy, pixel_features
from nenya.evaluation.neighbours import knn_accuracy


def test_pixels_as_features_are_the_cutouts_flat(image_file):
    images = ImageFile(image_file, "valid")
    pixels = images.read(np.arange(12))
    assert np.array_equal(pixel_features(images).numpy(), np.array([image.ravel() for image in pixels]))


def test_raw_pixels_are_judged_by_the_metric_that_serves_them_better(tmp_path):
    rng = np.random.default_rng(4)
    labels = np.arange(40) % 2
    # the classes differ in brightness alone, which cosine cannot see
    pixels = (1 + labels[:, None, None]) * np.ones((40, 4, 4)) + 0.01 * rng.normal(size=(40, 4, 4))
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["train"], file["valid"] = pixels[:30], pixels[30:]
    images = [ImageFile(tmp_path / "c.h5", key) for key in ("train", "valid")]
    assert pixel_accuracy(images[0], labels[:30], images[1], labels[30:]) == 1
    features = [pixel_features(part) for part in images]
    assert knn_accuracy(features[0], labels[:30], features[1], labels[30:]) < 1
