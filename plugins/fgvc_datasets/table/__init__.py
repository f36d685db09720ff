"""The dataset `table`: a CSV or TSV file with the path, the label and optionally the split of each image."""
