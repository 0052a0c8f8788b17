"""Admission webhooks: what a configuration says, whom it concerns, and the calls.

``kinds`` is what is stored; ``hooks`` turns configurations into what is called; ``matching`` says
whether a write concerns a hook; ``client`` calls over TLS; ``dispatcher`` does it all in order.
https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
"""
