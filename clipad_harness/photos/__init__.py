"""A person's own images."""
