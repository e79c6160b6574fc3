"""The machine of a run: its processes, signals and hardware."""
