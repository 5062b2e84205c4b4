"""An AS4 access point and gateway for the EU Once-Only Technical System."""

__version__ = "0.1.0"
