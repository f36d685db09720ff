"""What a classifier looks at: shown on photographs, and scored over datasets."""
