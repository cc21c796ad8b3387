"""Notebooks become pages: Papermill, canonical notebooks, the index, the explorer."""
