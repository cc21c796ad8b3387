"""Drawings of a method at work, a module a method."""
