"""The episode viewer inside the report: every trial, its attempts and what was read on its tokens, in one HTML file."""

from esr.reporting.viewer.readings import TokenReadings
from esr.reporting.viewer.security import Inline
from esr.reporting.viewer.viewer import Viewer

__all__ = ["Inline", "TokenReadings", "Viewer"]
