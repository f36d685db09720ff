"""Scoring a classifier on labeled images, and predicting the classes of images without labels."""
