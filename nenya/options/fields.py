"""The option table: every option's name, type, bounds, unit, meaning, default and source, in one place.

The reference (``nenya options``, ``docs/options.md``), the validation of files and of assignments, and the messages
about mistakes are all derived from this table; nothing about an option is written down twice.
"""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict

from nenya.options.values import AxesOrder, ImageSize, Jitter, Marks, Milestones, Name, SizeStages, option

#: Above this batch size, warm-up is on whatever `warm` says (SupContrast's rule, kept for old option files).
WARM_BATCH_SIZE = 256


class Fields(BaseModel):
    """The table: a field an option, in the order of the reference. What is given besides is kept."""

    model_config = ConfigDict(extra="allow", strict=True, validate_assignment=True, allow_inf_nan=False)

    # Method
    ssl_method: Literal["SimCLR", "SupCon"] = option(
        "SimCLR",
        "SimCLR learns without labels; SupCon pulls together cutouts of one label.",
        group="Method",
        source="Chen et al. 2020; Khosla et al. 2020",
    )
    ssl_model: Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"] = option(
        "resnet50", "Backbone.", group="Method", source="He et al. 2016"
    )
    head: Literal["mlp", "linear"] = option(
        "mlp",
        "Projection head between the encoder's features and the loss.",
        group="Method",
        source="Chen et al. 2020, sec. 4.2",
    )
    feat_dim: Annotated[int, Ge(1), Le(65536)] = option(128, "Dimension of the projection z.", group="Method")
    temp: Annotated[float, Gt(0)] = option(
        0.07, "Temperature of the loss.", group="Method", source="Chen et al. 2020, eq. 1"
    )

    # Data
    images_file: str | None = option(
        None, "HDF5 file of cutouts, looked for in data_folder unless it is an absolute path.", group="Data"
    )
    data_folder: str = option("./", "Folder of the imagery, from where the program is started.", group="Data")
    dataset: str | None = option(
        None,
        "Old style: the name of the file in data_folder, with or without .h5, where images_file is not given.",
        group="Data",
    )
    train_key: str = option("train", "Dataset of the training cutouts: [N, H, W] or [N, C, H, W].", group="Data")
    valid_key: str | None = option(
        "valid", "Dataset of the validation cutouts; null, or a key that the file lacks: no validation.", group="Data"
    )
    label_key: str | None = option(
        None,
        "Dataset of integer labels, for SupCon; null: `<train_key>_labels` and `<valid_key>_labels`. A name with {key} "
        "in it is for both sets; any other is the training's.",
        group="Data",
    )
    nchannels: Annotated[int, Ge(1)] | None = option(
        None, "Channels that the imagery must have; null: whatever the file has.", group="Data"
    )
    axes: AxesOrder | None = option(
        None,
        "Order of the axes of train_key and valid_key as they lie in the file, where it is another than [N, H, W] or "
        '[N, C, H, W]: "NHWC" for channels last, "WHN" for an array data(n, row, column) that MATLAB has written. '
        "Cutouts that are not along the first axis are read whole and must fit into cache_mb. null: the usual order; a "
        "shape that speaks for another one is refused or warned about.",
        group="Data",
        allowed="the letters N, H, W and perhaps C, each once, or null",
    )
    missing: Marks = option(
        [],
        "Numbers that mark missing pixels besides NaN, _FillValue and missing_value, as the file stores them: before "
        "scale_factor, add_offset and scale.",
        group="Data",
        allowed="a number, or a list of at most 64 numbers",
    )
    scale: Annotated[float, Gt(0)] = option(
        1.0, "Pixel values are multiplied by this as they are read (1/255 brings uint8 to 0..1).", group="Data"
    )
    max_nodata: Annotated[float, Ge(0), Lt(1)] = option(
        0.5,
        "A cutout with a larger share of missing pixels (NaN, infinite, _FillValue, missing_value, missing) is left "
        "out; so is one with a channel of which nothing is left. Else they become the mean of the channel's valid "
        "pixels in that cutout.",
        group="Data",
        unit="fraction",
    )
    cache_mb: Annotated[int, Ge(0)] = option(
        1024,
        "A dataset up to this size is kept in memory, as stored; a larger one is read as needed.",
        group="Data",
        unit="MB",
    )
    window_mb: Annotated[int, Ge(1)] = option(
        256,
        "Of a chunked dataset above cache_mb, so much is mixed at a time: the chunks are shuffled, and samples within "
        "a window of chunks. Two windows are in memory at once.",
        group="Data",
        unit="MB",
    )
    num_workers: Annotated[int, Ge(0)] = option(
        4,
        "Batches that a background thread keeps ready, and threads that unpack chunks (never more than processor "
        "cores); 0: each is read when it is asked for.",
        group="Data",
    )

    # Views
    flip: bool = option(True, "Mirror each axis with probability 1/2.", group="Views")
    rotate: bool = option(True, "Rotate about the centre by any angle, 0 to 360 degrees.", group="Views")
    random_jitter: Jitter = option(
        (5, 5),
        "[a, b]. a above half the cutout's side: a fixed window of a x a pixels, its centre shifted by up to b along "
        "each axis (the image is mirrored beyond its edges). Else up to a pixels trimmed from each pair of sides, the "
        "window shifted by up to b inside the cutout. 0 or null: no crop.",
        group="Views",
        unit="pixels",
        allowed="[a, b] with whole numbers a >= 1 and b >= 0, or 0 or null for no crop",
    )
    gauss_noise: Annotated[float, Ge(0)] = option(
        0.0,
        "Standard deviation of the white noise added to each view.",
        group="Views",
        unit="of the image (K for SST), after scale",
    )
    demean: bool = option(True, "Subtract each channel's mean from each view.", group="Views")
    image_size: ImageSize = option(
        None,
        "Side of the views that the network sees, or [height, width]; null: the cutout's own (with a fixed window, "
        "its shorter side). The biggest lever on time: half the side is a quarter of the work.",
        group="Views",
        unit="pixels",
        allowed="a whole number from 4 to 65536, a pair [height, width] of such, or null",
    )
    image_size_schedule: SizeStages | None = option(
        None,
        "Sizes of the training views in turn, each with its share of the epochs (to whole epochs): [[32, 0.7], [48, "
        "0.3]] trains with 48 pixels at the end. Validation, health figures and latents are always of views of "
        "image_size, where that is null of the last size here. null: image_size throughout.",
        group="Views",
        unit="pixels, share",
        source="Touvron et al. 2019; Tan & Le 2021",
        allowed="a list of [size, share] whose shares are above 0 and add up to 1, sizes as for image_size, or null",
    )

    # Optimisation
    epochs: Annotated[int, Ge(1)] = option(200, "Passes over the training cutouts.", group="Optimisation")
    batch_size_train: Annotated[int, Ge(2)] = option(
        64,
        "Cutouts in a training batch (each gives two views); several processes share it evenly.",
        group="Optimisation",
    )
    batch_size_valid: Annotated[int, Ge(2)] = option(
        64, "Cutouts in a validation batch; keep it fixed between runs to compare their losses.", group="Optimisation"
    )
    accumulate: Annotated[int, Ge(1)] = option(
        1,
        "Parts in which a batch is computed: the memory of one part, the loss and gradient of the whole batch "
        "(batch-norm works within each part), one more pass forward.",
        group="Optimisation",
        source="Gao et al. 2021",
    )
    micro_batch_size: Annotated[int, Ge(1)] | None = option(
        None,
        "The same, given as the largest number of cutouts that a process computes at once; null: the whole batch.",
        group="Optimisation",
        unit="cutouts",
    )
    optimizer: Literal["sgd", "muon"] = option(
        "sgd",
        "muon: the weights of all convolutions but the first are moved by orthogonal matrices, all other parameters by "
        "SGD.",
        group="Optimisation",
        source="Jordan et al. 2024",
    )
    learning_rate: Annotated[float, Gt(0)] = option(
        0.05, "Learning rate from which the schedule falls.", group="Optimisation"
    )
    momentum: Annotated[float, Ge(0), Lt(1)] = option(0.9, "Momentum of SGD.", group="Optimisation")
    nesterov: bool = option(
        False, "Nesterov's form of SGD's momentum.", group="Optimisation", source="Sutskever et al. 2013"
    )
    weight_decay: Annotated[float, Ge(0)] = option(1e-4, "Weight decay of SGD.", group="Optimisation")
    muon_learning_rate: Annotated[float, Gt(0)] = option(
        0.24,
        "Learning rate of Muon, in step with learning_rate: both fall and warm up by the same factors. With "
        "muon_keep_norm it is the length of an update beside that of the weights.",
        group="Optimisation",
    )
    muon_momentum: Annotated[float, Ge(0), Lt(1)] = option(
        0.6, "Momentum of Muon, in Nesterov's form.", group="Optimisation"
    )
    muon_steps: Annotated[int, Ge(1), Le(5)] = option(
        3, "Newton-Schulz steps of an update of Muon: more come nearer to an orthogonal one.", group="Optimisation"
    )
    muon_keep_norm: bool = option(
        True,
        "Keep the norm of each convolution's weights at sqrt(output channels), which batch-norm makes free to choose. "
        "false: weight_decay holds them (weights * (1 - rate * weight_decay)).",
        group="Optimisation",
    )
    cosine: bool = option(
        True,
        "Learning rate falls along a cosine, of which each epoch has the value at its end: the last one, or the only "
        "one, has learning_rate * lr_decay_rate^3. false: steps at lr_decay_epochs.",
        group="Optimisation",
        source="Loshchilov & Hutter 2017",
    )
    schedule_by: Literal["epoch", "step"] = option(
        "epoch",
        "step: each batch has its own place on the cosine, from learning_rate at the first one, so that a run of one "
        "epoch learns too. epoch: each epoch has the cosine's value at its end.",
        group="Optimisation",
        source="Loshchilov & Hutter 2017, eq. 5",
    )
    lr_decay_epochs: Milestones = option(
        [700, 800, 900],
        "Epochs after which the learning rate is multiplied by lr_decay_rate (without cosine).",
        group="Optimisation",
        unit="epochs",
        allowed='rising whole numbers >= 1, as a list or as text like "700, 800, 900"',
    )
    lr_decay_rate: Annotated[float, Gt(0), Le(1)] = option(
        0.1, "Factor of each step; its cube times learning_rate is where the cosine ends.", group="Optimisation"
    )
    warm: bool = option(
        False,
        f"Warm the learning rate up over the first warm_epochs; always on above batch size {WARM_BATCH_SIZE}.",
        group="Optimisation",
        source="Goyal et al. 2017",
    )
    warm_epochs: Annotated[int, Ge(1)] | Annotated[float, Gt(0)] = option(
        10,
        "Length of the warm-up; where it would fill the whole run it is shortened to a tenth of it (with schedule_by "
        "epoch, to whole epochs).",
        group="Optimisation",
        unit="epochs",
        allowed="a number > 0",
    )
    warmup_from: Annotated[float, Ge(0)] = option(
        0.01, "Learning rate at which the warm-up starts.", group="Optimisation"
    )

    # Run
    seed: Annotated[int, Ge(0), Lt(2**63)] = option(
        0, "Seed of the initial weights, of the order of the samples and of the views.", group="Run"
    )
    precision: Literal["auto", "fp32", "bf16"] = option(
        "auto",
        "Arithmetic of the network and of Muon's steps: auto takes bfloat16 where the processor gains by it, else "
        "float32. The loss is always float32.",
        group="Run",
    )
    cuda_use: bool = option(True, "Use the GPU, or all GPUs of the machine, where there is one.", group="Run")
    compile: bool | Literal["auto"] = option(
        "auto",
        "Compile the network with torch.compile: a first step of a minute or more. auto: no, since a CPU gains little "
        "or nothing after it and GPUs have not been measured.",
        group="Run",
    )
    syncBN: bool | None = option(
        None,
        "Common batch-norm statistics of several processes on GPUs; null: yes. Without effect in a single process.",
        group="Run",
        source="Chen et al. 2020, sec. 2.2",
    )
    gradient_compression: Literal["none", "bf16"] = option(
        "none",
        "How several processes exchange gradients: bf16 halves what goes over the network and rounds it.",
        group="Run",
    )
    on_collapse: Literal["stop", "warn"] = option(
        "stop", "What to do when the validation finds the features collapsed.", group="Run"
    )

    # Output
    model_root: str = option(
        "models/v5",
        "Root of the output. One that begins with models/ or is absolute is used as it stands, any other gets "
        "models/ in front.",
        group="Output",
    )
    trial: int | str = option(0, "Tells runs with equal options apart in the folder's name.", group="Output")
    save_freq: Annotated[int, Ge(1)] = option(
        10,
        "ckpt_epoch_{epoch}.pth is written every so many epochs (last.pth after each).",
        group="Output",
        unit="epochs",
    )
    save_every_minutes: Annotated[float, Gt(0)] | None = option(
        15.0,
        "last.pth is written in mid-epoch too, every so many minutes; null: after each epoch only.",
        group="Output",
        unit="minutes",
    )
    keep: Annotated[int, Ge(1)] | None = option(
        None,
        "Only the newest so many ckpt_epoch_{epoch}.pth of the run are kept; null: all. last.pth and the state before "
        "it, previous.pth, are kept besides.",
        group="Output",
        unit="files",
    )
    valid_freq: Annotated[int, Ge(1)] = option(
        5, "Validation every so many epochs, and after the last.", group="Output", unit="epochs"
    )
    print_freq: Annotated[int, Ge(1)] = option(
        10,
        "Every so many batches a line of the log where there is no terminal; on a GPU also how often losses are looked "
        "at, and a run can be saved or stopped.",
        group="Output",
        unit="batches",
    )
    tensorboard: bool = option(
        False, "Write TensorBoard event files too (pip install 'nenya[tensorboard]').", group="Output"
    )
    model_name: Name = option(
        None,
        "Name of the run; null: built from the options.",
        group="Output",
        allowed="text without / and \\, or null",
    )
    model_folder: str | None = option(
        None, "Folder of the checkpoints and curves; null: model_root/model_name.", group="Output"
    )
    latents_folder: str | None = option(
        None,
        "Folder where code of your own may put latents; nothing is written there. null: the model folder's path with "
        "latents/ for models/.",
        group="Output",
    )
