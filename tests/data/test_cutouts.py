"""The protocol is enough: cutouts that come from elsewhere than HDF5 are looked at, loaded and encoded as those are."""

import numpy as np
import pytest
import torch

from nenya.data.attributes import Meaning
from nenya.data.augment import Views
from nenya.data.findings import doubts, sum_up
from nenya.data.images import ImageFile
from nenya.data.loaders import ViewLoader
from nenya.data.pixels import Packing
from nenya.latents.encode import encode_cutouts
from nenya.models import assemble_model


class FromArray:
    """Cutouts of an array, written from the protocol alone."""

    path, key, in_memory, num_threads, scale, remarks = None, "array", True, 1, 1.0, ()
    num_left_out, rows_per_read, is_chunked, ends = 0, 1, False, None

    def __init__(self, pixels):
        self.pixels = pixels
        self.shape, self.dtype, self.num_bytes = pixels.shape, pixels.dtype, pixels.nbytes
        _, self.num_channels, self.height, self.width = pixels.shape
        self.usable = np.arange(len(pixels))
        self.row_bytes = pixels[0].nbytes
        self.meaning = Meaning(pixels.dtype, pixels.dtype)
        self.packing = Packing.of(pixels.dtype, [], 1.0, 0.0, 1.0)

    def __len__(self):
        return len(self.pixels)

    def read_stored(self, rows):
        return self.pixels[rows]

    read = read_stored

    def begin_reading(self, rows, threads):
        return threads.submit(self.read_stored, rows).result

    def to_float(self, stored):
        return self.packing.to_float(stored)


@pytest.fixture
def both(image_file):
    images = ImageFile(image_file, "train")
    return images, FromArray(images.read(np.arange(len(images))))


def test_the_loader_makes_the_same_batches_of_both(both, tiny):
    batches = []
    for images in both:
        loader = ViewLoader(images, Views.from_options(tiny(), images.height, images.width), 4, train=True)
        batches.append([(batch.view1, batch.view2, batch.rows) for batch in loader])
    for mine, other in zip(*batches, strict=True):
        assert all(map(torch.equal, mine, other))


def test_the_statistics_of_both_are_the_same(both, tiny):
    texts = []
    for images in both:
        loader = ViewLoader(images, Views.from_options(tiny(), images.height, images.width), 4, train=True)
        texts.append((sum_up(loader.statistics), doubts(images, loader.statistics)))
    assert texts[0] == texts[1]


def test_the_latents_of_both_are_the_same(both, tiny):
    model = assemble_model("resnet18", "mlp", 16, both[0].num_channels)
    assert torch.equal(*(encode_cutouts(model, images, tiny(), batch_size=5) for images in both))
