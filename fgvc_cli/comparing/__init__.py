"""Runs beside each other: the table of a comparison, and which of its differences are more than noise."""
