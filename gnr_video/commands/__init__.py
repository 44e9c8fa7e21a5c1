"""The commands of gnr-video, a module a topic: options and messages; the work is in the packages."""
