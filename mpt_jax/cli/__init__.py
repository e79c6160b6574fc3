"""The command line: arguments, exit statuses, progress bars, the compilation cache."""
