"""The methods, a room each: a folder that exposes one `METHOD`."""
