"""Tasks: losses of networks on recordings without targets; one file per kind of task."""
