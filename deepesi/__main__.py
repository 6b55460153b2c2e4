"""``python -m deepesi``: the same as ``deepesi``."""

from deepesi.cli.main import main

if __name__ == "__main__":
    main()
