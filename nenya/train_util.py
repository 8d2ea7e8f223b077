"""Door: loader, model and epoch of a run, for those who write their own loop. Everything here is defined elsewhere."""

from nenya.data.loaders import nenya_loader
from nenya.params import option_preprocess
from nenya.training.build import set_model
from nenya.training.epoch import train_model

__all__ = ["nenya_loader", "option_preprocess", "set_model", "train_model"]
