"""CEL as Kubernetes has it: which functions there are, and what an expression may cost.

``environment`` compiles; ``budget`` ends what takes too long; the other modules are libraries of
functions, each named after the part of https://kubernetes.io/docs/reference/using-api/cel/ that
it implements.
"""
