"""Nenya: self-supervised contrastive learning on satellite imagery, from one options file.

The tour, in reading order:

* ``nenya.train.main(opts_file)`` trains a model; ``nenya train OPTS`` is the same from a shell.
* ``nenya.params.Params`` holds the options; ``nenya options`` explains every one of them.
* ``nenya.train_util`` and ``nenya.util`` hold the pieces of a run, for those who write their own loop.
* ``nenya.models.resnet_big.SupConResNet`` and ``nenya.losses.SupConLoss`` are the model and its loss.
* ``nenya.errors`` lists what can go wrong with options, data and checkpoints.

Importing ``nenya`` imports none of these: torch is loaded by the module that needs it.
"""

__version__ = "0.1.0"
