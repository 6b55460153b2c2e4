"""Train, compare, export: the main job. Same as `deepesi train`."""

from deepesi.app.train import main

if __name__ == "__main__":
    main()
