"""The harness of clipad: data, stages, reports. It imports the core, never the other way round."""
