"""Any models side by side. Same as `deepesi evaluate`."""

from deepesi.app.evaluate import main

if __name__ == "__main__":
    main()
