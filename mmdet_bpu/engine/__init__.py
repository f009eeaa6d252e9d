"""Training stages inside mmengine: runner, loops, hooks, settings, weights."""
