"""A web page and an HTTP API that fill holes, one picture after the other."""
