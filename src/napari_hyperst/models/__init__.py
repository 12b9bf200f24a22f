"""Tiles and counts become points in hyperbolic space and predictions."""
