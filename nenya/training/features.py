"""Door: where the latents of cutouts and their neighbours were found. Everything here is defined elsewhere."""

from nenya.evaluation.baselines import pixel_accuracy, pixel_features
from nenya.evaluation.neighbours import knn_accuracy
from nenya.latents.encode import encode_cutouts

__all__ = ["encode_cutouts", "knn_accuracy", "pixel_accuracy", "pixel_features"]
