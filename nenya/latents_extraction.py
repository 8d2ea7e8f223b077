"""Door: latents of cutouts, for scripts of the historical code. Everything here is defined elsewhere."""

from nenya.latents.historical import model_latents_extract

__all__ = ["model_latents_extract"]
