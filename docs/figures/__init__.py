"""Draws the figures of the pages from the code."""
