"""Picture stages: what is done to crops, drawings and frames, an effect a file."""
