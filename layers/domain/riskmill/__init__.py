"""riskmill: a reinsurer's risk models at scale on serverless AWS.

The domain is pure: no I/O, no clock, no environment. `riskmill.aws` does the I/O and decides nothing.
"""

__version__ = "0.1.0"
