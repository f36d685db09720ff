"""Studies: train many combinations, compare them, and test the differences for significance."""
