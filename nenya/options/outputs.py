"""Where a run writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nenya.options.run_options import Options


@dataclass(frozen=True)
class Outputs:
    """Where a run writes.

    Attributes:
        folder: The model folder.
        name: The model's name, with which the names of its curves begin.
    """

    folder: Path
    name: str

    @classmethod
    def from_options(cls, opt: Options) -> Outputs:
        """Read the options, which must be complete."""
        assert opt.model_folder is not None, "complete_options was not called"
        assert opt.model_name is not None, "complete_options was not called"
        return cls(Path(opt.model_folder), opt.model_name)
