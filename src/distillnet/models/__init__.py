"""From a MODEL argument to a network with its weights, its preprocessing and its classes."""

from distillnet.models.load import Model, load_model, random_model

__all__ = ["Model", "load_model", "random_model"]
