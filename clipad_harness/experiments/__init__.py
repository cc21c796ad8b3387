"""From params.yaml through variants, features and trainings to one table of results."""
