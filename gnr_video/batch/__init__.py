"""Many inputs in one run: what they are and what their translations are called, what is done already, the run."""
