"""A folder of images becomes one table."""
