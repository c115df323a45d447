"""Thin callbacks for trainers of other libraries: they report metrics and take the snapshots that are rewound to.

The mask needs none of them: `run.model` holds it under any trainer.
"""
