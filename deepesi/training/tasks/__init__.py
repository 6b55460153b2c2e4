"""What networks learn from recordings without targets; one file per kind of task."""
