"""Run again and compare."""
