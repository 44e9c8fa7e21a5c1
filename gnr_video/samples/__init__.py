"""Sample material: a portrait under a moving camera, faces to calibrate with, faces out of a clip."""
