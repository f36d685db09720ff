"""The command line. Only this package prints, draws progress or names an option."""
