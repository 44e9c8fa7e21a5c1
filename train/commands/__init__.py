"""Commands of training: their options and messages, no work."""
