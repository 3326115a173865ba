"""Missions: one pass over the images of all classes, any set of them afterwards, without images."""

__all__: list[str] = []
