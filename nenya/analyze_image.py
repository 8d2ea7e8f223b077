"""Door: latents and DT of an image, for scripts of the historical code. Everything here is defined elsewhere."""

from nenya.latents.historical import calc_DT, get_latents

__all__ = ["calc_DT", "get_latents"]
