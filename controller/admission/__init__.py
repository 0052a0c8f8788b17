"""May this be stored? What a schema cannot say, asked before a write is kept.

One judge, ``judge.Judge``, serves the embedded API server in process (it is a
``controller.apiserver.admission.Admission``). Any other cluster asks the controller:
``registration.py`` has it ask, ``webhook.py`` answers, with what the store has (``local.py``).
The judge reads and never writes::

    CREATE, UPDATE   parse the spec with its pydantic model        parse.py
                     compare it with what it refers to             checks.py
    DELETE           is it, or what goes with it, still in use?    guards.py

Only what is certain is refused. A reference to an object that does not exist yet is fine (the
reconciler waits for it: Git applies in any order), and so is everything that time can mend.
"""

from __future__ import annotations

from controller.admission.judge import Judge

__all__ = ["Judge"]
