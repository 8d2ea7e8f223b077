"""What features have learned: pure functions of arrays, and the pixels as the baseline to beat."""
