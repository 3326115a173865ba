from .load import Model, load_model, random_model

__all__ = [
    "Model",
    "load_model",
    "random_model",
]
