"""Reading and writing pictures and video: the first stage of the pipeline and the last."""
