"""Several runs as one classifier: their probabilities averaged, and how far their mistakes are different ones."""
