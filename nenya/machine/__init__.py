"""The machine that a run is on: device and precision, memory, compiler, signals. Knows no options and no models."""
