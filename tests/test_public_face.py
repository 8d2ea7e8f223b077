"""The promised import paths and signatures, frozen: a change here breaks users' scripts."""

import importlib
import inspect

import pytest

FACE = {
    "nenya.train.main": "(opts_file, debug=False)",
    "nenya.models.resnet_big.SupConResNet": "(name='resnet50', head='mlp', feat_dim=128)",
    "nenya.losses.SupConLoss": "(temperature=0.07, contrast_mode='all', base_temperature=0.07)",
    "nenya.params.Params": "(path)",
    "nenya.params.Params.save": "(self, path)",
    "nenya.params.Params.update": "(self, path)",
    "nenya.params.option_preprocess": "(opt)",
    "nenya.train_util.nenya_loader": "(opt, valid=False)",
    "nenya.train_util.set_model": "(opt, cuda_use=True)",
    "nenya.train_util.train_model": (
        "(loader, model, criterion, optimizer, epoch, opt, cuda_use=True, update_model=True)"
    ),
    "nenya.util.adjust_learning_rate": "(opt, optimizer, epoch)",
    "nenya.util.warmup_learning_rate": "(opt, epoch, idx, num_batches, optimizer)",
    "nenya.util.set_optimizer": "(opt, model)",
    "nenya.util.save_model": "(model, optimizer, opt, epoch, file)",
    "nenya.util.AverageMeter": "()",
    "nenya.util.TwoCropTransform": "(transform)",
    "nenya.latents_extraction.model_latents_extract": (
        "(opt, data_file, model_path, partitions=('train', 'valid'), allowed_indices=None, *, "
        "remove_module=True, in_loader=None, using_gpu=None, debug=False)"
    ),
    "nenya.analyze_image.get_latents": "(img, model_file, opt)",
    "nenya.analyze_image.calc_DT": "(images, random_jitter, verbose=False)",
    # what docs and users' scripts name
    "nenya.models.reading.load_model": "(file)",
    "nenya.training.checkpoint.load_model": "(file)",  # where it was before
    "nenya.training.features.encode_cutouts": "(model, images, opt, *, device='cpu', batch_size=128)",
    "nenya.latents.run.write_latents": "(model, cutouts, out, wanted=None, *, resume=False, export=None)",
    "nenya.training.features.knn_accuracy": (
        "(train, train_labels, valid, valid_labels, neighbours=5, metric='cosine')"
    ),
    "nenya.training.health.view_retrieval": "(first, second)",
    "nenya.data.images.ImageFile": (
        "(path, key, *, axes=None, missing=(), scale=1.0, max_nodata=0.5, cache_mb=1024, num_threads=1)"
    ),
    "nenya.data.loaders.open_images": "(opt, *, valid=False)",
    "nenya.params.complete_options": "(opt)",
    "nenya.export.export_model": "(model, folder, *, cutouts=None, shape=None, onnx=None, licence=None)",
    "nenya.export.load_export": "(folder)",
}


def _resolve(path):
    module, _, rest = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), rest)
    except ModuleNotFoundError:
        return getattr(_resolve(module), rest)


@pytest.mark.parametrize("path", FACE)
def test_signature_is_the_promised_one(path):
    signature = inspect.signature(_resolve(path))
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    assert str(inspect.Signature(bare)) == FACE[path]


def test_params_dict_is_a_property():
    assert isinstance(inspect.getattr_static(_resolve("nenya.params.Params"), "dict"), property)


DOORS = (
    "nenya.util", "nenya.train_util", "nenya.latents_extraction", "nenya.analyze_image", "nenya.training.features",
    "nenya.training.health",
)  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
def test_doors_define_nothing(door):
    module = importlib.import_module(door)
    assert set(module.__all__) == {name for name in vars(module) if not name.startswith("_")}
    for name in module.__all__:
        assert getattr(module, name).__module__ != door
