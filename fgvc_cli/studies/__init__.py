"""Studies: many trainings that belong together, each an ordinary run, in one folder."""
