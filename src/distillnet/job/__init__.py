"""The whole job: who sees which image, from a model to a ``Distillation``, and the run folder."""

__all__: list[str] = []
