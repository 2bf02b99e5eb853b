"""Filling files: one image, a folder, a pattern, a list or shards, over any number of devices."""
