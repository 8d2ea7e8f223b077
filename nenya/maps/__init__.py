"""Maps of patterns: latents laid out in two dimensions, how far to trust that, and where and when patterns occur."""
