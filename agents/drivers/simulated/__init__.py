"""The simulator's parts: what a machine would do (machine, store), what goes wrong (chaos), and
where it is kept (world). ``agents.drivers.simulator`` puts them together."""
