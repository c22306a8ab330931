"""Writes the keys of S3 events into a table, with the size of the batch that each came in; fails on poison."""

import json
import os
from typing import Any

import boto3

table = boto3.resource("dynamodb").Table(os.environ["TABLE"])


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    failures = []
    for record in event["Records"]:
        for change in json.loads(record["body"]).get("Records", []):  # a test event has none
            key = change["s3"]["object"]["key"]
            if key.endswith("poison"):
                failures.append({"itemIdentifier": record["messageId"]})
            else:
                table.put_item(Item={"id": key, "batch": len(event["Records"])})
    return {"batchItemFailures": failures}
