"""Scoring a classifier on labelled images, and predicting the classes of images without labels."""
