"""Files, settings, workers, run records."""
