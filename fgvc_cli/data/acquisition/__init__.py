"""Obtain and check the files of datasets."""
