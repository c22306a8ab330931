"""Limits and prices of AWS that sizing depends on, each with its page. They change: look them up before relying on one.

Rates are per second, times in seconds, prices in dollars on demand in us-east-1 on x86.
"""

from typing import Final

#: Fargate task launches per account and region, on demand and Spot alike (a bucket of their own each):
#: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/throttling.html
LAUNCH_BURST: Final = 100
LAUNCH_RATE: Final = 20.0

#: Tasks that one RunTask call may start: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RunTask.html
TASKS_A_CALL: Final = 10

#: RunTask calls that Fargate takes a second (same page as the launches).
RUN_TASK_CALLS: Final = 20.0

#: Tasks that an ECS service starts a minute:
#: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-quotas.html
SERVICE_LAUNCHES_A_MINUTE: Final = 500

#: A target-tracking policy scales out after this many breaching one-minute data points of its alarm:
#: https://docs.aws.amazon.com/autoscaling/application/userguide/target-tracking-scaling-policy-overview.html
TRACKING_POINTS: Final = 3
#: and in after this many that are well below it (same page)
TRACKING_POINTS_IN: Final = 15
TRACKING_PERIOD: Final = 60.0

#: Events of one execution's history: https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
HISTORY_EVENTS: Final = 25_000
#: Standard executions started a second (bucket and refill in the large regions), and their state transitions.
START_EXECUTION_BURST: Final = 1_300
START_EXECUTION_RATE: Final = 300.0
STATE_TRANSITIONS: Final = 5_000.0
#: SendTaskSuccess, SendTaskFailure and SendTaskHeartbeat: bucket and refill, same page.
TASK_CALLBACK_BURST: Final = 3_000
TASK_CALLBACK_RATE: Final = 500.0
#: Children of one Distributed Map at a time, same page.
MAP_CHILDREN: Final = 10_000

#: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
LAMBDA_SECONDS: Final = 900.0
#: Environments that a function gains every ten seconds:
#: https://docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html
LAMBDA_GROWTH_A_10_S: Final = 1_000

#: Requests a second of one partitioned prefix; outputs are spread over 256 of them:
#: https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance.html
S3_WRITES: Final = 3_500.0
S3_READS: Final = 5_500.0

#: Messages of a standard queue that may be in flight:
#: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
SQS_IN_FLIGHT: Final = 120_000

#: https://aws.amazon.com/fargate/pricing/ (billed by the second, a minute at the least)
FARGATE_VCPU_HOUR: Final = 0.04048
FARGATE_GB_HOUR: Final = 0.004445
FARGATE_MINIMUM: Final = 60.0
#: https://aws.amazon.com/lambda/pricing/
LAMBDA_GB_SECOND: Final = 0.0000166667
LAMBDA_REQUEST: Final = 0.20e-6
#: https://aws.amazon.com/step-functions/pricing/
TRANSITION: Final = 0.025e-3
#: https://aws.amazon.com/s3/pricing/
S3_PUT: Final = 0.005e-3
S3_GET: Final = 0.0004e-3
#: https://aws.amazon.com/sqs/pricing/
SQS_REQUEST: Final = 0.40e-6


def task_dollars_per_hour(vcpu: float, gigabytes: float) -> float:
    """Return the price of one Fargate task for an hour."""
    return vcpu * FARGATE_VCPU_HOUR + gigabytes * FARGATE_GB_HOUR
