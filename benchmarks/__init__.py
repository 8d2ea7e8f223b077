"""How fast Nenya is, beside a conventional pipeline and the machine's own limits: ``python -m benchmarks``."""
