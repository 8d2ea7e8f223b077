"""The recipe: an options file for short runs, with comments that say why, as ``nenya options --recipe`` prints it.

What it sets beyond the page's options are options like any other; nothing else knows of the recipe.
"""

from __future__ import annotations

RECIPE = """\
{
    // What to learn from: the file of cutouts, looked for in data_folder, by default where you start the program.
    "images_file": "cutouts.h5",
    "ssl_model": "resnet18",              // a step takes a fraction of the time of resnet50's

    // Two views of a cutout show windows of 40 x 40 pixels whose centres differ by up to 2 x 5: what they share is
    // what the network has to find. For cutouts of 64 pixels; about 5/8 of the side of yours.
    "random_jitter": [40, 5],

    // Small views first, which cost less, and large ones at the end. Validation and latents are always of views of
    // image_size: figures of runs with the same image_size can be compared, others cannot.
    "image_size": 48,
    "image_size_schedule": [[32, 0.7], [48, 0.3]],

    // The learning rate falls over the steps of the run to its last one, so that no epoch is spent at a rate that moves
    // nothing, however few there are. Another number of epochs is another run: choose what your time allows.
    "epochs": 20,
    "cosine": true,
    "schedule_by": "step",

    // Muon moves the convolutions along all directions of the gradient alike, instead of the few in which it is large.
    // The other parameters (the first convolution, batch-norm, the head) are moved by SGD with learning_rate.
    "optimizer": "muon",
    "muon_learning_rate": 0.24,           // by so much of their own length the weights move in a step
    "muon_momentum": 0.6,
    "learning_rate": 0.05,
    "momentum": 0.9,

    "batch_size_train": 64,               // how many cutouts each is told apart from at a time
    "valid_freq": 5                       // each validation costs a pass forward over the validation set
}
"""
