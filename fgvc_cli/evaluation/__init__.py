"""Evaluate classifiers on labeled images, and predict the classes of unlabeled ones."""
