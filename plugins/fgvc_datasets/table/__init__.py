"""The dataset that is a table: a CSV or TSV file with the path, the label and perhaps the split of each image."""
