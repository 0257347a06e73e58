"""The experiments: each a small file that lists conditions."""

from esr.studies.experiments.registry import EXPERIMENTS, Experiment, experiment

__all__ = ["EXPERIMENTS", "Experiment", "experiment"]
