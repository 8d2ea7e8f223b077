"""The pixels themselves as features."""

import h5py
import numpy as np
import pytest
from sklearn.decomposition import PCA

from nenya.data.images import ImageFile
from nenya.evaluation.baselines import PixelComponents, image_statistics, pixel_accuracy, pixel_features
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


def test_statistics_of_a_cutout_are_mean_dt_and_gradient(cutouts):
    pixels = np.concatenate((cutouts(5, 12, 1), 2 * cutouts(5, 12, 2)), axis=1)
    found = image_statistics(pixels)
    assert found.shape == (5, 6)
    one = pixels[3, 1].astype(np.float64)
    slope = np.mean([np.hypot(*pair) for pair in zip(*(part.ravel() for part in np.gradient(one)), strict=True)])
    expected = [one.mean(), np.percentile(one, 90) - np.percentile(one, 10), slope]
    np.testing.assert_allclose(found[3, [1, 3, 5]], expected, rtol=1e-9)
    assert image_statistics(np.ones((2, 1, 1, 4)))[:, 2].tolist() == [0, 0]


@pytest.mark.parametrize("count", [20, 200])  # fewer and more cutouts than pixels
def test_components_of_pixels_are_those_of_scikit_learn(cutouts, count):
    pixels, others = cutouts(count, 8, 1), cutouts(30, 8, 2)
    components = PixelComponents(pixels, 6)
    theirs = PCA(6, svd_solver="full").fit(pixels.reshape(count, -1).astype(np.float64))
    expected = theirs.transform(others.reshape(30, -1))
    np.testing.assert_allclose(np.abs(components.of(others)), np.abs(expected), rtol=1e-6, atol=1e-6)


def test_there_are_no_more_components_than_directions():
    assert PixelComponents(np.random.default_rng(0).normal(size=(4, 1, 3, 3))).of(np.zeros((2, 1, 3, 3))).shape == (
        2,
        3,
    )
    assert PixelComponents(np.ones((4, 1, 3, 3))).of(np.ones((2, 1, 3, 3))).shape == (2, 0)
