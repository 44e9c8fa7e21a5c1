"""Many videos on many machines: workers of a Ray cluster, each with an engine of its own (extra `ray`)."""
