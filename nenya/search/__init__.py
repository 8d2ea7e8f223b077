"""Search: the cutouts whose latents are nearest to that of another, with what the cutout table tells of them."""
