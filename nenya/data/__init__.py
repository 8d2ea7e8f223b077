"""Imagery in, pairs of views out: images -> order -> augment -> loaders."""
