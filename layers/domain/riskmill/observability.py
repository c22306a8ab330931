"""The one logger, metrics and tracer of every function, and what a handler needs around it.

Correlation: every log line carries the run's id, and the batch's where there is one.
"""

from aws_lambda_powertools import Logger, Metrics, Tracer

NAMESPACE = "riskmill"

logger = Logger(service=NAMESPACE)
metrics = Metrics(namespace=NAMESPACE, service=NAMESPACE)
tracer = Tracer(service=NAMESPACE)
