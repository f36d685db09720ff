"""Settings of a run: defaults, recipes, files, options and `--set`, merged and validated."""
