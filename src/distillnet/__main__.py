"""``python -m distillnet``: the command line."""

from distillnet.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
