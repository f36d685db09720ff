"""Timing combinations of components on the machine at hand."""
