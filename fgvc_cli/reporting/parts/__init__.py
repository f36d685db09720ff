"""The parts of a run's section: each turns what was gathered of a run into a section of the page."""
