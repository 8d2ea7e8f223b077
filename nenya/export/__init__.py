"""A trained model as a folder to keep or to publish: weights, description, model card, and a file for other programs.

The door: `export_model` is what ``nenya export`` calls, `load_export` reads such a folder.
"""

from nenya.export.contents import load_export
from nenya.export.run import Exported, export_model

__all__ = ["Exported", "export_model", "load_export"]
