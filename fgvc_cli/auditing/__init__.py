"""Find what is wrong with the photographs of a dataset: copies, wrong labels, odd and unusable images."""
