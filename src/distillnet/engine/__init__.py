"""A network as C that skips what a mission does not need: no runtime, no allocation."""
