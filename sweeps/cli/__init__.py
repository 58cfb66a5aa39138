"""The command line: verbs, options, what is printed."""
