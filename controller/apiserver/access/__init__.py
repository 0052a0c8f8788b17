"""Who may do what: RBAC, reviews of access, service accounts and their tokens, impersonation.

``rules`` is pure; ``rbac`` decides from the stored roles and bindings; ``escalation`` keeps writers
of roles from granting what they do not have; ``reviews`` answers questions about access;
``tokens`` signs and checks service account tokens; ``keeper`` makes what every cluster has.
"""
