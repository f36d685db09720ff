"""Report pages: what a run folder holds and shows, as one HTML file that loads nothing from elsewhere."""
