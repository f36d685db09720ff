"""Benchmark combinations of components on this machine."""
