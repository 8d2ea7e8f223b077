"""Every snippet of the training page, as printed, on data small enough for a laptop."""

import os
from pathlib import Path

import h5py
import numpy as np
import torch
from torch.backends import cudnn


def test_the_page_runs_from_top_to_bottom(tiny_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "path" / "to").mkdir(parents=True)
    tiny_file("path/to/opts_file.json", model_root="page")

    from nenya.train import main as train_main

    # Train a model using options from a JSON file
    train_main("path/to/opts_file.json", debug=False)

    from nenya.models.resnet_big import SupConResNet

    # Create a model with a specific backbone and feature dimension
    model = SupConResNet(name='resnet50', feat_dim=128)  # fmt: skip
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 128)

    from nenya.losses import SupConLoss

    # Create a loss function with a specific temperature
    criterion = SupConLoss(temperature=0.07)

    from nenya import params

    # Load options from a JSON file
    opt = params.Params("path/to/opts_file.json")

    # Preprocess options (set derived values)
    params.option_preprocess(opt)
    assert (tmp_path / opt.model_folder / "last.pth").is_file()

    from nenya.train_util import nenya_loader

    # Create a training data loader
    train_loader = nenya_loader(opt, valid=False)

    # Create a validation data loader
    valid_loader = nenya_loader(opt, valid=True)

    from nenya.train_util import set_model
    from nenya.util import set_optimizer

    model, criterion = set_model(opt, cuda_use=opt.cuda_use)
    optimizer = set_optimizer(opt, model)
    epoch = 1

    from nenya.train_util import train_model

    # Train for one epoch
    loss, losses_step, losses_avg = train_model(
        train_loader, model, criterion, optimizer, epoch, opt,
        cuda_use=opt.cuda_use)  # fmt: skip
    assert len(losses_step) == len(losses_avg) == len(train_loader) == 3
    assert loss == losses_avg[-1]
    valid_loss, *_ = train_model(valid_loader, model, criterion, None, epoch, opt, opt.cuda_use, update_model=False)
    assert np.isfinite(valid_loss)

    from nenya.util import adjust_learning_rate, warmup_learning_rate

    # Adjust learning rate according to epoch
    adjust_learning_rate(opt, optimizer, epoch)

    # Apply warmup to the learning rate within an epoch
    idx = 0
    warmup_learning_rate(opt, epoch, idx, len(train_loader), optimizer)

    from nenya.util import save_model

    # Save model checkpoint
    save_file = os.path.join(opt.model_folder, f'ckpt_epoch_{epoch}.pth')  # fmt: skip
    save_model(model, optimizer, opt, epoch, save_file)
    assert os.path.isfile(save_file)

    from nenya.util import AverageMeter

    # Create meters for tracking statistics
    batch_time = AverageMeter()
    data_time = AverageMeter()
    losses = AverageMeter()
    assert batch_time.count == data_time.count == 0

    # Update meter with new values
    loss, bsz = torch.tensor(2.5), 8
    losses.update(loss.item(), bsz)
    assert losses.avg == 2.5

    losses_file_train = os.path.join(opt.model_folder, "learning_curve", f"{opt.model_name}_losses_train.h5")
    with h5py.File(losses_file_train, "r") as f:
        assert set(f) >= {"loss_train", "loss_step_train", "loss_avg_train"}
        loss_train, loss_step_train, loss_avg_train = (
            f[k][:] for k in ("loss_train", "loss_step_train", "loss_avg_train")
        )
    assert (len(loss_train), len(loss_step_train), len(loss_avg_train)) == (2, 6, 6)
    losses_file_train = tmp_path / "mine.h5"
    with h5py.File(losses_file_train, 'w') as f:  # fmt: skip
        f.create_dataset('loss_train', data=np.array(loss_train))  # fmt: skip
        f.create_dataset('loss_step_train', data=np.array(loss_step_train))  # fmt: skip
        f.create_dataset('loss_avg_train', data=np.array(loss_avg_train))  # fmt: skip

    cuda_use = opt.cuda_use
    if torch.cuda.is_available() and cuda_use:
        if torch.cuda.device_count() > 1:
            model.encoder = torch.nn.DataParallel(model.encoder)
        model = model.cuda()
        criterion = criterion.cuda()
        cudnn.benchmark = True


def test_a_file_that_names_only_its_imagery_has_the_pages_defaults(tmp_path):
    from nenya.params import Params

    (tmp_path / "o.json").write_text('{"images_file": "cutouts.h5"}')
    opt = Params(tmp_path / "o.json")
    assert (opt.ssl_model, opt.epochs, opt.batch_size_train, opt.model_root) == ("resnet50", 200, 64, "models/v5")
    assert (opt.train_key, opt.valid_key, opt.save_freq, opt.valid_freq) == ("train", "valid", 10, 5)


def test_the_page_itself_promises_what_is_tested_here(shared):
    page = (shared / "spec" / "model-training.txt").read_text()
    here = Path(__file__).read_text()
    snippets = [
        line.strip() for line in page.splitlines() if line.startswith(("from nenya", "train_main(", "model = "))
    ]
    assert len(snippets) >= 10
    for line in snippets:
        assert line in here
