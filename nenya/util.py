"""Door: the small pieces of a run, for those who write their own loop. Everything here is defined elsewhere."""

from nenya.data.augment import TwoCropTransform
from nenya.training.checkpoint import save_model
from nenya.training.meters import AverageMeter
from nenya.training.optim import adjust_learning_rate, set_optimizer, warmup_learning_rate

__all__ = [
    "AverageMeter",
    "TwoCropTransform",
    "adjust_learning_rate",
    "save_model",
    "set_optimizer",
    "warmup_learning_rate",
]
