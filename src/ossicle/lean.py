"""transformers, imported with less: see `ossicle.deferred` for what is put off, and `ossicle.compiler`.

Imported for its effect, before anything else of transformers is.

Source: our choice.
"""

from __future__ import annotations

import importlib

from ossicle.compiler import marks_noted
from ossicle.deferred import forget_other_processes, put_off

forget_other_processes()
with marks_noted(), put_off("scipy.optimize", "linear_sum_assignment"):
    for name in ("loss.loss_utils", "modeling_utils", "generation.utils", "models.auto.modeling_auto"):
        importlib.import_module(f"transformers.{name}")
