"""``python -m deepesi``: the same as ``deepesi``."""

from deepesi.app.cli import main

if __name__ == "__main__":
    main()
