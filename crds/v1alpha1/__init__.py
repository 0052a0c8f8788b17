"""The kinds of kumulus.dev/v1alpha1, a module each. ``crds.kinds()`` finds them."""
