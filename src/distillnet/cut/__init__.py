"""What stays of a network, ``Plan``, what it costs, and carrying it out."""

__all__: list[str] = []
