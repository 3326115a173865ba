"""The small-network playbook of the slides: families of networks, and what a change does to one."""

__all__: list[str] = []
