"""The command line: one file for each noun, nothing heavy imported before a command needs it."""
