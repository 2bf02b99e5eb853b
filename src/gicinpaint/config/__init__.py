"""Configuration: what is checked before anything is built, overrides, help pages."""
