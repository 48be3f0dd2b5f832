"""What a job will take, from a sample of its input: `pairmill JOB --estimate`."""
