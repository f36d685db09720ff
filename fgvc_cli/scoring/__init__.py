"""Inference over a split: scores, metrics and the files that hold them."""
