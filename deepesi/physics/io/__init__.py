"""Head models from recordings and forward solutions of MNE-Python, with all checks."""
