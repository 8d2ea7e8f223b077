"""The options: the table, old names, what a file of them may look like, and the messages about mistakes in it.

Data flow: `reading` makes names and values of a file, `old_names` gives them their present names, `run_options` checks
them against the table in `fields`; `messages` says what is wrong, `reference` explains the table.
"""

from nenya.options.fields import WARM_BATCH_SIZE
from nenya.options.messages import did_you_mean, table
from nenya.options.old_names import ALIASES, IGNORED
from nenya.options.outputs import Outputs
from nenya.options.run_options import DERIVED, HARMLESS, OF_MUON, OFF_BEFORE, Options, output_root

__all__ = [
    "ALIASES",
    "DERIVED",
    "HARMLESS",
    "IGNORED",
    "OFF_BEFORE",
    "OF_MUON",
    "WARM_BATCH_SIZE",
    "Options",
    "Outputs",
    "did_you_mean",
    "output_root",
    "table",
]
