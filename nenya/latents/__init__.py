"""From a trained model to the latents of cutouts."""
