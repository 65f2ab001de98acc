"""Routing daemons in namespaces, for tests of the agent beside them: `programs` runs them."""
