"""Granules -> cutouts: swaths and grids as they are published become a file of cutouts and a table. Without torch.

The door: `make_cutouts` and `merge` are what ``nenya cutouts`` calls.
"""

from nenya.granules.run import Summary, make_cutouts, merge
from nenya.granules.settings import Settings

__all__ = ["Settings", "Summary", "make_cutouts", "merge"]
