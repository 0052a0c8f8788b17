"""Kill points for chaos tests: the process kills itself at a chosen step of a chosen flow.

``KUMULUS_KILL_AT="<flow>:<step>:<before|after|rollback>"``, with ``@N`` appended for the N-th time
that the point is passed (default the first). ``*`` stands for any flow or step. SIGKILL leaves no
time to clean up, as a crash or a power cut would. It acts in this process alone and only when the
variable is set; whoever restarts the process clears it.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Mapping

from controller.workflow.observers import Observer, StepEvent

VARIABLE = "KUMULUS_KILL_AT"
_POINT = re.compile(
    r"(?P<flow>[a-z0-9-]+|\*):(?P<step>[a-z0-9-]+|\*):(?P<when>before|after|rollback)(@(?P<nth>[1-9][0-9]*))?"
)


def _kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_point(
    environment: Mapping[str, str], kill: Callable[[], None] = _kill_self
) -> Observer | None:
    """The observer that the environment asks for, or None. Raises ValueError on a bad point."""
    text = environment.get(VARIABLE, "")
    if not text:
        return None
    match = _POINT.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{VARIABLE}={text!r} is no kill point; "
            "write flow:step:before, flow:step:after or flow:step:rollback, or any of them with @N"
        )
    left = int(match["nth"] or 1)

    def observe(event: StepEvent) -> None:
        nonlocal left
        if (
            match["flow"] in ("*", event.flow)
            and match["step"] in ("*", event.step)
            and match["when"] == event.when
        ):
            left -= 1
            if left == 0:
                kill()

    return observe
