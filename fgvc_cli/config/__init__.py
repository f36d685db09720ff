"""Every setting of a run: defaults, recipes, files and `--set`, merged and validated."""
