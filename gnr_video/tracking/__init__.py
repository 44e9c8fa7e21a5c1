"""Where people are: faces and who is who, their landmarks and alignment, and what of a picture is a person."""
