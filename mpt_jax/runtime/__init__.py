"""The machine that a run is on: processes, signals, hardware."""
