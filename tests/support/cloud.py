raise ImportError(
    "The author of this file please write it again: the author of tests/support/embedded.py "
    "overwrote it by mistake before it was committed, and moved away since. Sorry."
)
