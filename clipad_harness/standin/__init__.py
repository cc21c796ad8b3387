"""The drawn world and the CLIP trained on it."""
