"""The embedded API server and the reference server, measured in turn by one load generator.

``wire`` is the generator's HTTP client, ``load`` what is asked of a server, ``servers`` starts
them and says what they use, ``__main__`` prints the table.
"""
