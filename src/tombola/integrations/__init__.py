"""Callbacks for trainers of other libraries. They report metrics and take the snapshots of `rewind`.

The mask does not need them: `run.model` holds it under any trainer.
"""
