"""Door: where the health of features was measured. Everything here is defined elsewhere."""

from nenya.evaluation.health import (
    Health,
    alignment,
    collapse,
    effective_rank,
    measure,
    spread,
    uniformity,
    view_retrieval,
)

__all__ = [
    "Health",
    "alignment",
    "collapse",
    "effective_rank",
    "measure",
    "spread",
    "uniformity",
    "view_retrieval",
]
