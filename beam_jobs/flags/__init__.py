"""The options of the jobs, by stage."""
