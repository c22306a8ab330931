"""The only package that imports boto3 or redis: it does I/O and decides nothing."""
