"""``python -m controller.cli``: how the supervisor starts its children."""

from controller.cli import main

main()
