"""Who owns which field (KEP-555): field sets, differences, merges, managedFields.

``sets`` (sets of paths) and ``types`` (how values merge) are the base; ``values`` makes sets from
values and differences of values, ``merge`` merges and removes; ``managed`` keeps
metadata.managedFields at every write, ``applied`` is server-side apply.
"""
