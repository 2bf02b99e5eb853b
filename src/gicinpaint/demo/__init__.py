"""A web page and an HTTP API that fill holes, one image after the other."""
