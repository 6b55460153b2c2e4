"""Options of the commands, one file per command; torch is imported only where one needs it."""
